"""The longer texts of the Model page."""

MEASURE_HELP = "One pass over the text. After it, moving the span or the ridge is live: the model is not run again."
HELD_HELP = (
    "4 or 8 bits make a large model fit while it is measured; its distances move a little. The transform is then merged into the "
    "unquantised checkpoint, so that the pruned model is not quantised."
)
MERGED_LATER = (
    "nothing is merged into these weights. *Keep this variant* on the Fit page merges the transform into the model's own checkpoint "
    "and writes the result to a folder."
)
MIX_HELP = "Two texts in one set, for example general text and text of your own field. What the model generates itself is not mixed."
KEPT_HELP = (
    "For every span that can be fitted afterwards without running the model again, the pass adds up matrices of width × width numbers. "
    "The distance matrix is always whole; a span that was not kept costs one more pass, on the Fit page."
)
IMAGES_HELP = "This model reads images (beta): its calibration set is a folder of png or jpg files on this machine, with the folders in it."
SKIP_FIRST_HELP = (
    "Many models put a token of huge norm first, which the text after it does not resemble. Weighted fits hardly notice it; plain least "
    "squares does. Distances count it in any case."
)
