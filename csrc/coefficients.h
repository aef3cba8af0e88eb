// Places in a row of the coefficient table: reg_engine/ops/coefficients.py, COLUMNS, in that order;
// b_0, b_1, ... follow from kFirstB on. tests/test_ops_extension.py compares the two.
#pragma once

namespace reg_engine {

enum Column {
  kW,
  kSkip,
  kOut,
  kP,
  kQ,
  kA,
  kC,
  kCIn,
  kTime,
  kAlpha,
  kSigma,
  kLimit,
  kKeep,
  kFirstB
};

}  // namespace reg_engine
