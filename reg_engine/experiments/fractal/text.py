"""Words of the fractal experiment's page."""

from __future__ import annotations

INTRO = """Guidance pushes samples away from the decision boundary of a classifier (classifier
guidance, CG) or of the data (CFG); pushed hard, they leave the data. The paper moves finished
samples back, by a second flow from generated samples to real ones near them. Does it, on a mixture
as intricate as theirs? What does it not repair? And what is left to repair under rectified guidance
(REG)?"""
SETTING = """**Data.** Two classes, each a tree of 127 branches (six splits) with {components}
Gaussians, as in the paper. Its constants are unknown to us; ours: first branch 0.4 long, each next
one 0.75 times that, 0.8 radians to either side; deviations of a Gaussian 1/14 of its branch along
it and 0.06 across; every depth has the same mass. Deviation along each axis {deviation:.2f}.
{points:,} points a class for training, as many to measure against, and a third set for the floor;
no set shares a point.

**Networks.** An EDM denoiser (128 wide, three blocks; {base} steps of {batch} points, one in five
without label: one network serves CFG and CG), {steps} Heun steps. CG: one linear layer on (x_t, t),
as in the paper, trained on a chain of 1000 steps. The paper has 100,000 steps of 4096 points for
each network and 30,000 for the classifier. Scales mean what they mean there: eps_u + scale (eps_c -
eps_u) for CFG, eps_u - scale sigma grad log p(c|x_t) for CG.

**Postprocessing.** From {pool} samples a class to a random one of their {nearest} nearest training
points of the same class; {flow} steps of {flow_batch} points; {flow_steps} `flow_heun` steps.
*Dedicated* flows know one scale; *one-for-all* has as many samples and steps, in equal shares of
the scales {scales}.

**Measures**, of {count} samples a class. *Distance*: mean distance to the nearest point of the
measuring set of the same class, in hundredths (x 100). *Precision* and *recall*: Kynkaanniemi et
al. 2019, k = 3. *Energy distance* to real points of the class, and to the *target* that guidance
aims at: p(x|y) p(y|x)^(scale - 1) for CFG, p(x) p_phi(y|x)^scale with the linear classifier p_phi
for CG. *Own class*: share that is nearer to its class by the exact p(y|x). *Memory*: how often a
sample is nearer to the training set than a held-out real point is; 0.5 is like real data, 1 would
be copies, below 0.5 is off the data."""
CLOUDS = """As the paper's Figs. 4 and 5: real points, then samples before and after their dedicated
flow, over scales; dashed: the classifier's boundary for clean data (lower row: that of the data).
Samples leave the branches, the flow takes them back, and whole regions stay empty at large
scales."""
CURVES_CAPTION = """Averages of both classes over the scale. Postprocessing repairs the distance to
the data (upper row), not energy distance and recall (below): it moves samples back to the branches
near them, not to those that guidance has emptied. Dotted: what fresh real points score."""
MORE = """Is one-for-all only trained too little? With {more} times the samples and steps its
distances for CG, against the dedicated flows as they are: {found}. {why} The difference between
both kinds is at most {gap:.2f} hundredths, where fresh real points score {floor:.2f}."""
NOT_TRAINING = """That narrows the gap and does not close it. Part of it may be that one-for-all is
not told the scale: where samples of several scales pass the same place, its velocity is the mean of
theirs."""
REG_TEXT = """Rectified guidance aims at the same target with the same networks. For CFG that is
almost the class itself, because the classes hardly overlap: real points have p(y|x) =
{exact_probability:.3f} on average. The linear classifier gives them {linear_probability:.2f}, since
one slope has to serve all noise levels, and most of them are high; so CG's target, p(x)
p_phi(y|x)^scale, holds points of the other class. At scale {shown:g}, {target:.0%} of it lie in
their own class; of plain CG's samples {plain:.0%}, of REG's {reg:.0%}. CG overshoots its target;
REG falls short of it, but comes nearer (energy to target, above). REG repairs guidance, not the
classifier. A flow that searches within the class repairs both where it was trained, but cannot
refill branches that guidance has emptied."""
REG_CAPTION = """Scale {shown:g}. Left: what guidance aims at (real points, thinned); postprocessed
by the one-for-all flow, REG by one of its own. Below, REG refills the branches that CFG empties;
its flow removes the strays. Above, REG with the linear classifier leaves points in the other class;
a flow takes most of them only as far as where both trees meet."""
COSTS = """A backward pass costs about two evaluations: per sample REG costs more than the flow, and
nothing before the first sample. At scale {shown:g} CFG's distance is {before:.2f} (x 100); with REG
{reg:.2f}, with one-for-all postprocessing {one:.2f}, with both {reg_post:.2f}. The energy distance
to the class goes from {energy_before:.2g} to {energy_reg:.2g}, {energy_one:.2g} and
{energy_reg_post:.2g}. So REG does a part of what postprocessing does, and most of what
postprocessing cannot do."""
PARTS = """Guidance alone hardly pushes samples off the branches: the exact denoiser keeps them
close at every scale (first number), for its last steps know nothing but branches. (CG at scale 1 is
another matter: the linear classifier leaves many samples in the other class.) What leaves the
branches is a trained network, asked where it hardly saw data. Guidance's own error is the second
number: too many samples far from the boundary. Postprocessing repairs the former, REG the
latter."""
AGAINST = """The paper shows that samples at large scales lie off the branches, that postprocessing
takes them back, for CG and for CFG, and that one flow for all scales does as well. The text known
to us names neither metric nor scales of its Table 1 (CFG), nor which of a cell's numbers is which,
so only ratios can be compared: from the first number of a cell to the others it goes down
{theirs[0]:.1f} to {theirs[1]:.1f} times; our distance, before to after, {ours[0]:.1f} to
{ours[1]:.1f} times. The constants of the data, the learning rates and k are unknown too."""
