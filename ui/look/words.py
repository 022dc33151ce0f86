"""Longer texts that more than one page shows."""

MODEL_LEFT = "The model that this tab used has been unloaded to make room for another one. Load it again on the Model page."
FIT_HELP = (
    "Relative error: 0 % means the transform rebuilds exactly what the removed blocks would have added, 100 % is as bad as adding nothing."
)
IN_SEQUENCE = "Several spans are fitted in sequence, from the first to the last; T is shrunk toward the identity by held-out error."
