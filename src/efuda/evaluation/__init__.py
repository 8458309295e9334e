"""Calibrate and evaluate: thresholds fitted on validation, judged on a split that they have not seen.

    calibrate(model, dataset)                       # thresholds and probabilities, stored in the model
    evaluation = evaluate(model, dataset)           # the test split
    evaluation.calibrated.micro.f1, evaluation.calibrated.intervals["micro_f1"]
    evaluate(model, dataset, plan=Plan(policies=["p=r", "mcut"], against=[Path("wd-model")], diligent=True))

Both run the exported model on the dataset's pictures, as everyone who uses it will. docs/measuring.md says what each
number is.
"""

from efuda.evaluation.calibrating import calibrate
from efuda.evaluation.comparing import Compared, Difference
from efuda.evaluation.evaluating import Plan, evaluate
from efuda.evaluation.evaluation import Evaluation, Shown, Suspect
from efuda.evaluation.policies import POLICIES, Policy, fit_thresholds
from efuda.evaluation.results import Measured, Results

__all__ = [
    "POLICIES",
    "Compared",
    "Difference",
    "Evaluation",
    "Measured",
    "Plan",
    "Policy",
    "Results",
    "Shown",
    "Suspect",
    "calibrate",
    "evaluate",
    "fit_thresholds",
]
