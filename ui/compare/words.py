"""The longer texts of the Compare page."""

SYSTEMS_HELP = (
    "Two to four: the original, the same blocks removed with nothing in their place, and the variants that were kept on the Fit page."
)
REFERENCE_HELP = "Differences and KL are measured from this system to each of the others. KL has a direction: KL(this ‖ other)."
TOO_FEW = "Choose at least two systems to set them side by side."
NOT_WRITTEN = "Nothing generated yet: press Generate."
PRESS_WRITE = "Press Generate to see what it says."
NOTHING = "It generated nothing: it ended the text at once."
MARKED = (
    "Underlined: not in the text of '{reference}' at that place. Dashed in '{reference}': left out by '{other}' ({left} of {of} tokens left out, "
    "{added} others written)."
)
BEGIN = "a prompt of ours, or any held-out text"
BEGIN_HELP = (
    "Held-out texts are those of the calibration set that no fit has read. The choice goes into the field below, where it can be changed."
)
CHAT_HELP = (
    "On: what you write is a message, put in the chat template of this model, and every system answers; several turns follow each other. "
    "Off: it is plain text, and every system goes on with it."
)
SYSTEM_HELP = "Says who the model is to be. Empty: what the template itself puts there, which may be nothing."
SYSTEM_ON = "It stands for the whole conversation; a new conversation can have another one."
SYSTEM_EMPTY = "what the template puts there"
NEXT_MESSAGE = "your next message: every system goes on with its own answers"
MESSAGE_HELP = "A text that begins with a special token, like a held-out chat, is in the template already and is read as it is."
ENDED = {
    "limit": "{n} new tokens, the number asked for",
    "end of text": "{n} tokens, then it ended the text itself",
    "context full": "{n} tokens, then the context of {context} was full",
    "stopped": "stopped after {n} tokens",
}
PARTING = (
    "One text, read by every system: before each token, what does it expect? The bar under a token is KL({reference} ‖ system) there, "
    "in nats. No bar: the same expectation."
)
STRIP_HELP = (
    "A full bar is {full:.2f} nats, the same for every system; no bar: below {seen:g}. Click a token, or choose it with the slider, and the "
    "table says what was expected there."
)
SKIPPED = "The text has {n} tokens more before these; only the last {shown} are shown."
PART = "part of a character"
LENS = (
    "If the model had to answer after only a few blocks, what would it say next? The residual stream that enters each block is sent straight to the "
    "final norm and the output matrix (the *logit lens*). From top to bottom the answer forms; the last row is what the model says."
)
LENS_CUT = (
    "Rows with the same name enter the same block. Hatched: the removed blocks. '←' names the carrier, the block before the span, whose output goes in there instead. "
    "A dashed frame marks a different first token than '{reference}' has there."
)
LENS_COLOUR = {
    "probability": "Figures and shade: the probability of the first token, in percent.",
    "kl": "Figures and shade: KL from the system's own answer to this guess, in nats; strong is far away.",
}
LENS_TITLES = {"probability": "probability", "kl": "KL to its answer"}
HELDOUT = "Text that neither a fit nor a choice has read. Intervals are 95 %, from resampling documents. KL is measured from '{reference}'."
RATIO_HELP = (
    "×1.10: 10 % higher than that of '{reference}' on the same text. Its interval is paired: the same documents are drawn for both."
)
DRAW_SETTINGS_HELP = "0 always takes the most likely token, so that differences come from the models and not from chance."
