"""The longer texts of the Blocks page; those of one layer of the matrix are in `layers`."""

ROW_ZERO = "Block 0 always stays, because the transform is merged into the block before the span. Start at block 1 or later."
NO_TIMING = "The model is {held}, so no blocks are removed in memory to be timed. Once a variant is kept, Compare shows the speed of both."
MATRIX_HELP = "Each cell is one span: its row is the first removed block, its column the last. Click a cell to choose it."
STUDIES_LATER = "These studies begin when the pass has ended."
PART = "blocks_part"
"""the key of the tabs"""
TABS = ("The span", "Studies: best places, several spans, linearity")
MATRIX_TABLE_HELP = (
    "Tab into the table and move with the arrow keys: the cell you stand on is the span, from its row's block to its column's block. "
    "Empty cells are no spans."
)
DASHED_HELP = "Long dashes: further spans of the same cut. Dots: the pinned one."
SO_FAR = (
    "The pass is under way, and the matrix sharpens with it. A span can be chosen now; fits come when the pass has ended, or when you "
    "press *Enough*, which keeps what was read."
)
FIT_LONG = "A fit of this span takes about {time} here; the Fit page makes it beside the page."
FIT_LATER = "What a fit of this span would give is known when the pass has ended."
MISSED_LATER = "The relative error of the fit is known when the pass has ended; until then the distance ranks the places."
ERRORS_LATER = "This layer takes a fit of every span, which is possible when the pass has ended."
ERRORS = "Error after the fit, every span"
ERRORS_HELP = "This layer takes a fit of every span. It is made once for a calibration set; the other layers are there at once."
PIN_HELP = "Remember this choice, choose another one, and read both side by side."
CRITERION_HELP = (
    "Each is made of the one calibration pass. On the models that were measured the paper's distance is hard to beat, but it does not see an "
    "attention sink, so the default adds that; to know, measure: 'Find the best places'."
)
PLACES = "Find the best places"
PLACES_HELP = (
    "At an eighth, a quarter, three eighths and half of the depth, the first places by distance and by relative error are fitted, "
    "merged and measured on the held-out part, which chose the fits too. Compare measures your choice on test text. Nothing is kept."
)
PLACES_CAPTION = (
    "Lower and further right is better. Joined: no other point removes as many blocks at a lower KL. Lines: 95 % over sequences. "
    "Click a point to choose its blocks. The least of several measured figures is a little too low."
)
PROFILE_MARKS = (
    "◆ least · ■ chosen · ○ with '?': within the spread of the least, so that the text cannot tell them apart · band: two standard "
    "errors, where they are known"
)
PROFILE_HELP = (
    "Order, not cost: even the first place may break the model. The band is two standard errors over the calibration sequences; where "
    "bands overlap, this text cannot tell the places apart. What a removal costs is measured on Compare, and by *Find the best places*."
)
SEVERAL = "More than one span"
SEVERAL_HELP = (
    "Blocks can go in several places; each place has its own carrier. They are fitted one after the other: a later place sees what the "
    "already pruned model computes, and aims at what the intact one has there."
)
SPREAD = (
    "From a third of the depth on, two places with a refit around each cost a lower KL than one on both models that were measured; at a "
    "quarter, a higher one."
)
SPREAD_HELP = (
    "SmolLM2, recommended refit, KL on 4,000 test tokens of WikiText-2, one place and two: 8 of 30 blocks 0.55 and 0.65, 9 blocks 0.96 and 0.75, "
    "11 blocks 1.07 and 0.93. The demo, 4,096 test tokens: 3 of 12 blocks 0.055 and 0.069, 4 blocks 0.099 and 0.096, 6 blocks 0.23 and 0.18. Right "
    "answers to 1,200 questions did not tell them apart (with another refit)."
)
CHOOSE_SPANS_HELP = (
    "The places with the least sum of cosine distances that keep the attention sink, with at least one block between any two."
)
COST_HELP = (
    "The model is run without each place on a few hundred tokens of the held-out part, from the block behind it on, and set against the "
    "original: KL of the next-token probabilities, nats per token. Two ways: the blocks removed and nothing in their place, and with the "
    "closed-form transform (least squares, tokens weighed) in the block before them. Nothing is cut and nothing is kept but the figures."
)
COST_CELLS = "Empty cells are not measured: choose a span, and the places of its length are next."
ONLY_DISTANCE = "The suggestion is only a distance: it does not say what a removal costs."
STOP_HELP = "Ends the measuring after the present step; the figures that are there stay."
COSTS_LATER = "What places cost is measured of language models, when the pass has ended."
CHOICE_FITTED = "With the closed-form transform in their place."
CHOICE_REMOVED = "With nothing in their place, since the pass could store nothing to fit from."
CHOICE_HELP = "Intervals are 95 %; that of the next place is of the difference on the same text."
PROFILE_HELP_MEASURED = (
    "Measured on the held-out part: what the model loses with the fitted transform in the blocks' place. The band is two standard errors; "
    "whether two places can be told apart is asked of their difference on the same text. Compare measures your choice on text that chose nothing."
)
COST_WAITS = "What places cost is measured when nothing else is being worked on."
