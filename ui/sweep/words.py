"""The longer texts of the Sweep page."""

INTRO = (
    "Every method is tried at every place: fitted, merged, checked, and measured on test text. Each finished point is written at once, "
    "so that a sweep that was stopped goes on where it was."
)
METHODS_HELP = "What stands in for the removed blocks. 'Removed, no transform' puts nothing there: what the others have to beat."
SHARES_HELP = "How much of the depth goes. For each share the places where the criterion is least are tried."
PLACES_HELP = "For each share: the best place by the criterion, the second best, and so on."
BY_HAND_HELP = "Spans as START:END, several cuts separated by semicolons; two spans in one cut: 2:4,6:8. Leave it empty for none."
BENCHMARKS_HELP = "Which benchmarks the relative accuracy is measured on: the suite that suits the model ('plain' is plain English, offline), or names that lm-eval knows. Choose 'none' for KL alone, which is faster."
ITEMS_HELP = "More questions, narrower intervals, and longer runs."
SPEED_HELP = "Original and pruned run in turn, so that what else the machine does touches both. Median and range of the repeats."
FOLDER_HELP = "The folder keeps every finished point. Name one that is there to go on with it, or to see it again."
NOT_IN_MEMORY = (
    "A sweep cuts the model in memory, and this one is held quantised or spread over devices. Load it unquantised on one device to sweep."
)
CLICK = "Click a point, or a row of the table, to make it the current variant: it is fitted again, merged, checked, and kept under a name."
FRONT_KL = "Joined: the points that no other one beats. Lines through points: 95 % interval over sequences."
FRONT_KEPT = "Joined: the points that no other one beats. Lines through points: 95 % interval over questions."
MS_HELP = (
    "Time per token: the ratio to the original, which ran in turn with each point, times the original's median. Flat lines: least and most of "
    "the repeats. Where they overlap, the machine could not tell the points apart."
)
LEAST_OF_SEVERAL = "The best of several measured points looks a little better than it is: it was chosen on the figures that are shown."
GAIN = (
    "Dashed: what would be gained if all time (or memory) were in the blocks. What the model keeps beside them, above all the vocabulary's "
    "matrices, is not pruned, so that the gain stays below it; a point above it shows how far this machine's timings scatter."
)
OTHER_MODEL = "This folder holds a sweep of another model ({model}). Load that model to see it, or choose another folder."
OTHER_TEXT = (
    "These points were fitted on another calibration set ({text}). They can be looked at; to keep one as a variant, measure the model on that "
    "set on the Model page first."
)
