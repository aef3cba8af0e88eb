"""Words of the `mnist` experiment's page."""

from __future__ import annotations

QUESTION = """Does REG make better images, or does it only weaken the guidance? At *equal scale* any
weakening of guidance looks good. So every method is sampled over its scales on {title}, {count:,}
images a point, and compared at *equal confidence*: the front of FID against how sure a classifier
is of the label. Both are compared before and after postprocessing."""
QUICK = """A quick run: FID of so few samples means little, and nothing is concluded from it. It
shows that every method, REG on it, and postprocessing run."""
WITHOUT_DATA = """This run was given no {title} (`--data {file}`). It leaves out what needs real
images: FID, precision and recall, the fronts, postprocessing, and the methods whose networks are
trained on them (autoguidance, classifier guidance)."""
SETTING = """The packaged {title} U-Net (EDM preconditioning), **{count:,} samples a point**{size},
as many of each label, the same seeds at every point; {solver}, {steps} steps at the noise levels
{times}: half of them where an image takes its shape (the table of estimators has Heun's with many
more). REG on the fronts is the estimator `{estimator}`. Sampling all points took {minutes:.1f}
minutes (finished batches are kept: it need not have been this run)."""
MEASURES = """* **FID** (Heusel et al. 2017) in the 128 features of the packaged classifier, the
  *judge*, against {real}. It compares with no other FID. No guide is the judge.
* **Agreement**: share of samples that the judge reads as the label that they were made for.
* **Confidence**: the mean log-odds ln(p / (1 - p)) that the judge gives to that label. Agreement
  and mean probability saturate at 100 %; log-odds do not.
* **Precision, recall** (Kynkaanniemi et al. 2019, k = 3) in the same features.
* **Error bars** are 95 %: 1.96 deviations of a bootstrap over samples, within labels, the real
  images fixed. Samples of one seed start from one noise, so differences are paired.
* **Evaluations** are network evaluations a sample; a guide's or a worse model's count as one."""
METHODS = (
    ("CFG", "constant scale; 1 is the conditional model alone"),
    ("linear CFG", "from the scale at sigma 80 to 1 at the last step, linear in sigma (REG)"),
    ("cosine CFG", "(scale - 1)(1 - cos(pi p))/2 with p = 1 - sigma/80 (REG's EDM code)"),
    ("interval CFG", "only for sigma in [{interval[0]}, {interval[1]}] (REG's EDM2 command)"),
    (
        "autoguidance",
        """away from a model of 6 % of the parameters after {steps[bad]} steps (the packaged one had
        {steps[packaged]})""",
    ),
    (
        "CG, network",
        """classifier guidance of the unconditional model (Eq. 9 of arXiv 2503.10638) by a small
        noise-aware network, {steps[cg]} steps; reads {right[cg]:.1%} of test images right""",
    ),
    (
        "CG, linear",
        """the same by one linear layer on (image, noise level), as in that study,
        {steps[cg_linear]} steps; {right[cg_linear]:.1%}""",
    ),
)
CONFIDENCE = """Lower is better, further right is surer; numbers are scales, bold with REG (the
weight w for CG, whose axis is stretched around the dotted line). Compare the filled line (REG) with
the open one at the same place on the axis below, not at the same number. Grey: CFG without REG.
Dotted: how sure the judge is of real test images. Last panel: REG's FID minus that without at equal
confidence; the bars of a method are the levels of its table, the lowest on top."""
SCALES = """FID, precision and recall at equal scale. Open: without REG; filled: with REG. Guidance
buys precision with recall; REG at the same scale buys less of both."""
ESTIMATORS = """FID of every estimator of REG beside CFG's at the same scale; to the right what each
costs. `paper` is the released code's row sum of the Jacobian."""
POST = """One flow for all scales (arXiv 2503.10638, App. A), from samples to one of the {k} nearest
training images, conditional on the label, in two versions: nearest in pixels, and in the judge's
features. Trained on {count:,} samples each of: {pool}; other seeds, and at scales that are not
evaluated but 1. U-Net {channels}, {steps:,} steps of {batch_size}; {solver}, {solver_steps} steps
(the paper: dopri5)."""
PAPERS = """* **REG** (arXiv 2501.18865, Fig. 3 and Table 2) compares the same five methods, each
  with and without REG, as fronts of FID against Inception score on ImageNet, 50,000 images a point.
  Its numbers are not known to us, so only the trend can be compared. Confidence and features of a
  small classifier take the place of Inception's here.
* On EDM2 the paper's linear and cosine weights beat constant ones, on DiT they do not. Here they
  stand on the fronts above; linear in sigma from 80 leaves little weight where images form
  (sigma below 3), which is why its scales are larger.
* REG's factor K goes to 0 at high noise: there it takes guidance back. It can repair most where a
  method guides wrongly at high noise: a linear weight that is largest there, a classifier that
  reads noise badly. The table of fronts says whether it does.
* **The classifier-centric study** (arXiv 2503.10638, Figs. 6, 7, S2, S3) shows MNIST in pictures
  only. Its recipe is followed: a linear classifier on image and step guides an unconditional model,
  and one flow moves samples of all scales to one of their {k} nearest training images. Memorisation
  and recall, which it does not measure, are in the tables above.
* On CIFAR-10 that study halves the FID of strong guidance (Tab. 2: 35.8 to 17.3 at scale 2.25;
  Tab. 3: 16.3 to 7.5 at scale 4). Here postprocessing changes {verdict}, with a far smaller pool,
  network and training (theirs: 50,000 samples, 400,000 steps).
* Not known: learning rates, the scales of its pictures, the paper's top-k on MNIST (20 is from its
  CIFAR-10 table). Network, optimizer steps and solver are smaller here than theirs."""
