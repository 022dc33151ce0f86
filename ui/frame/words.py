"""The longer texts of the frame: what is missing before a page can work, addresses, presenter mode."""

from ui.look.words import MODEL_LEFT as MODEL_LEFT

TOO_EARLY_MODEL = (
    "No model is loaded yet. Load one on the Model page, or start on the Overview: with a real language model, or with the small demo."
)
TOO_EARLY_MEASURE = "The model has not been measured yet. Choose a calibration set on the Model page and press Measure."
TOO_EARLY_VARIANT = "No pruned model is kept yet. Fit a transform on the Fit page and press Save and continue."
NO_SPAN = "This model has a single block, so no span can be removed: the block before a span must stay. Choose a deeper model."
TEXT_ONLY = "This page reads text, and the loaded model reads images: go on with Fit and Export, which work for it (beta)."

ADDRESS_HELP = (
    "Whoever opens it comes to this page, with the same model, removed blocks, prompt and card. The prompt is the one that was last "
    "used. Variants and uploads stay here."
)
ADDRESS_MEASURE = "The model is loaded. Measure it on the Model page; the blocks of the address are then chosen by themselves."
ADDRESS_LOAD_HELP = "Nothing is loaded before you press. A local folder is read on the server; any other name is fetched from Hugging Face."
PRESENTER_HELP = (
    "For a room: large type, larger charts, fewer controls. Keys: P and N turn the page, ← and → the cards of the lesson, Esc leaves."
)
