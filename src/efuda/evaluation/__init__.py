"""Calibrate and evaluate: thresholds fitted on validation, judged on a split that they have not seen.

    calibrate(model, dataset)                       # thresholds and probabilities, stored in the model
    evaluation = evaluate(model, dataset)           # the test split
    evaluation.calibrated.micro.f1, evaluation.calibrated.intervals["micro_f1"]
    evaluate(model, dataset, plan=Plan(policies=["p=r", "mcut"], against=[Path("wd-model")], diligent=True))
    compare([Path("model"), Path("wd-model")], dataset)             # any taggers, on the tags they have in common
    quantise(Path("model"), dataset, Path("model-int8"))            # in 8-bit integers, if it loses next to nothing

All run the exported model on the dataset's pictures, as everyone who uses it will. docs/measuring.md says what each
number is.
"""

from efuda.evaluation.calibrating import calibrate
from efuda.evaluation.comparing import compare
from efuda.evaluation.comparison import Compared, Comparison, Difference
from efuda.evaluation.evaluating import Plan, evaluate
from efuda.evaluation.evaluation import Evaluation, Shown, Suspect
from efuda.evaluation.policies import POLICIES, Policy, fit_thresholds
from efuda.evaluation.quantising import Quantised, quantise
from efuda.evaluation.results import Measured, Results

__all__ = [
    "POLICIES",
    "Compared",
    "Comparison",
    "Difference",
    "Evaluation",
    "Measured",
    "Plan",
    "Policy",
    "Quantised",
    "Results",
    "Shown",
    "Suspect",
    "calibrate",
    "compare",
    "evaluate",
    "fit_thresholds",
    "quantise",
]
