"""Every longer text of the app, in the words of `replaceme_core.artifacts`: one line per term."""

from typing import TYPE_CHECKING

from ui.look.site import EXTRAS as EXTRAS
from ui.look.site import PAGES as PAGES
from ui.look.site import STEPS as STEPS

if TYPE_CHECKING:
    from replaceme_core.plans.plan import ModelSection

NAME = "ReplaceMe Studio"
TAGLINE = (
    "Take whole blocks out of a language model, let one fitted matrix stand in for them, and see what it costs. "
    "No training: the matrix is merged into the block before the gap."
)

TERMS = {
    "block": "One layer of the model: attention, then an MLP. A model runs its blocks one after another.",
    "boundary": "The place between two blocks. Boundary i is what enters block i.",
    "span": "The run of neighbouring blocks that is taken out.",
    "carrier": "The block just before the span. The transform is merged into it, so the pruned model needs no new parts.",
    "transform": "One square matrix that stands in for the removed blocks.",
    "calibration set": "The text that is run through the model once, to measure distances and to fit the transform.",
    "distance": "1 minus the cosine between what enters a span and what leaves it. 0: the blocks change no direction.",
    "held-out": "Part of the text that the fit never sees. Errors on it show what to expect on new text.",
    "ridge": "A pull of the matrix towards zero. It keeps the fit steady when tokens are few.",
    "condition": "How close the fit is to having no unique answer. Above about 1e12 the figures are fragile.",
    "variant": "A pruned model that passed its proofs and has a name.",
    "perplexity": "How surprised the model is by text; lower is better. 1 would be never surprised.",
    "KL": "How far the pruned model's next-token probabilities are from the original's. 0: the same.",
    "agreement": "Share of positions where both models rank the same next token first.",
    "standard error": "How far a figure would typically move if other text were drawn.",
    "cut": "The same blocks removed with nothing in their place: what the transform has to repair.",
    "flip": "A question that one model gets right and the other wrong.",
    "share kept": "Accuracy of the pruned model on the benchmarks, as a share of the original's.",
    "Pareto front": "The points that no other one beats in both figures at once: to gain in one you must give in the other.",
    "proof": "A check that the pruned model is what it claims to be, made before it is shown.",
    "recipe": "A short YAML file with every setting; the command line repeats the run from it.",
}

TOO_EARLY_MODEL = "No model is loaded yet. Load one on the Model page, or start with the demo model on the Overview."
TOO_EARLY_MEASURE = "The model has not been measured yet. Choose a calibration set on the Model page and press Measure."
TOO_EARLY_VARIANT = "No pruned model is kept yet. Fit a transform on the Fit page and press Keep this variant."
MODEL_LEFT = "The model that this tab used has been unloaded to make room for another one. Load it again on the Model page."
NO_SPAN = "This model has a single block, so no span can be removed: the block before a span must stay. Choose a deeper model."
MEASURE_HELP = "One pass over the text. After it, moving the span or the ridge is live: the model is not run again."
ROW_ZERO = "Block 0 always stays, because the transform is merged into the block before the span. Start at block 1 or later."

HELD_HELP = (
    "4 or 8 bits make a large model fit while it is measured; its distances move a little. The transform is then merged into the "
    "unquantised checkpoint, so that the pruned model is not quantised."
)
MERGED_LATER = (
    "nothing is merged into these weights. *Keep this variant* on the Fit page merges the transform into the model's own checkpoint "
    "and writes the result to a folder."
)

UNEQUAL = "The variants are not quantised, so a part of every difference is that of the quantisation. A cut without transform is not made."
NO_TIMING = "The model is {held}, so it is not cut in memory to be timed. Once a variant is kept, Compare shows the speed of both."

MIX_HELP = "Two texts in one set, for example general text and text of your own field. What the model writes itself is not mixed."
KEPT_HELP = (
    "For every span that can be fitted afterwards without running the model again, the pass adds up matrices of width × width numbers. "
    "The distance matrix is always whole; a span that was not kept costs one more pass, on the Fit page."
)
IMAGES_HELP = "This model reads images (beta): its calibration set is a folder of png or jpg files on this machine, with the folders in it."

TEXT_ONLY = "This page reads text, and the loaded model reads images: go on with Fit and Export, which work for it (beta)."

MATRIX_HELP = "Each cell is one span: its row is the first removed block, its column the last. Click a cell to choose it."
COLOUR_HELP = {
    "cosine_all": "**Strong colour: the stream leaves the span almost as it entered, so the blocks do little.**",
    "cosine_last": "**Strong colour: the stream leaves the span almost as it entered, so the blocks do little.**",
    "angular": "**Strong colour: the stream leaves the span almost as it entered, so the blocks do little.**",
    "error": "**Strong colour: the transform explains nearly all that the blocks did.**",
    "norm_ratio": "**Orange: the stream grows across the span; blue: it shrinks; plain: it keeps its length.**",
}
MATRIX_TABLE_HELP = (
    "Tab into the table and move with the arrow keys: the cell you stand on is the span, from its row's block to its column's block. "
    "Empty cells are no spans."
)
DASHED_HELP = "Long dashes: further spans of the same cut. Dots: the pinned one."
ERRORS = "Error after the fit, every span"
ERRORS_HELP = "This layer takes a fit of every span. It is made once for a calibration set; the other layers are there at once."
PIN_HELP = "Remember this choice, choose another one, and read both side by side."
CRITERION_HELP = (
    "Each is made of the one calibration pass. On the models that were measured none is best everywhere, so the paper's distance stays "
    "the default; to know, measure: 'Find the best places'."
)
PLACES = "Find the best places"
PLACES_HELP = (
    "At an eighth, a quarter, three eighths and half of the depth, the first places by distance and by what the fit misses are fitted, "
    "merged and measured on held-out text. Nothing is kept."
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
    "The same length at every place in the model. The band is two standard errors over the calibration sequences: "
    "where bands overlap, the text cannot tell the places apart."
)
RULER_LEGEND = ("kept", "carrier: gets the transform T", "removed")

LAYERS = {
    "cosine_all": ("Distance, all tokens", "1 − cosine between boundary states, averaged over every token."),
    "cosine_last": ("Distance, last token", "The same at the last token of each sequence only, where the next word is decided."),
    "angular": ("Angle", "The mean cosine as an angle; 0 is the same direction, 1 the opposite one."),
    "error": (
        "Error after the fit",
        "Held-out share of its target that the fitted transform leaves unexplained. The target leaves out what the stream holds beside "
        "the carrier's output, so compare ends of one start; between starts, and for what it costs, see 'Find the best places'.",
    ),
    "norm_ratio": ("Growth", "Length of the stream after the span divided by its length before it; 1 means unchanged."),
}

FIT_HELP = (
    "Errors are shares: 0 % means the transform rebuilds exactly what the removed blocks would have added, 100 % means "
    "that nothing of it is explained."
)
KEEP_HELP = (
    "Keeping it merges the fit into the weights and proves the result: the merged model must give the same outputs as the hooked one."
)
PENALTY_HELP = (
    "Strength of a pull of T towards 0; T = identity would add L1 + L2 to the loss. L1 makes entries exactly 0 (proximal gradient)."
)
STEPS_HELP = "Steps before the method gives up; for Adam, passes over the stored tokens. Empty: its default."
SPECTRUM_HELP = "Singular values of T. All at 1: T only rotates. Far from 1: it stretches or drops directions."
MATRIX_T_HELP = "T minus the identity. Plain: T passes a direction on unchanged. Strong colours: what the removed blocks used to do."

DRAW_SETTINGS_HELP = "0 always takes the likeliest token, so that differences come from the models and not from chance."
HELDOUT_HELP = "Text that was not used for the fit. Intervals are 95 %, from resampling sequences."
RELOADED = "It was loaded back and is equal to the model in memory."
MERGED_ON_DISK = "All but the merged weights are bit for bit those of the original checkpoint, and it was loaded back as a plain model."
MERGED_SAVED = "This variant was written when it was kept, because its model is held quantised or spread; there is nothing left to export."
TEXT_LEFT = "The recipe can then be repeated only by someone who has this text; the model card says so."
PROOF_TO_COME = "Made when the folder or the zip is written; if it fails, nothing is left behind."
ZIP_HELP = (
    "For another machine than the server's. It is the same folder, read back and proved before it is packed; it waits in a temporary place "
    "until another one is packed, the session ends or the server stops."
)
ZIP_TOO_LARGE = "These weights come to {size}, and a zip is offered up to {most}: a browser's download passes through the server's memory. Write a folder."
EXPORT_HELP = (
    "The folder is written under a temporary name, loaded back, compared with the model in memory and only then renamed. "
    "It opens with plain transformers."
)


def held(section: "ModelSection") -> str:
    """How a model is in memory whose transform is merged on disk: 'held in 4 bits (NF4)', 'spread over all devices', or both."""
    bits = {"nf4": "held in 4 bits (NF4)", "int8": "held in 8 bits (int8)"}.get(section.quantisation or "", "")
    return ", ".join(part for part in (bits, "spread over all devices" if section.device == "spread" else "") if part)


SKIP_FIRST_HELP = (
    "Many models put a token of huge norm first, which the text after it does not resemble. Weighted fits hardly notice it; plain least "
    "squares does. Distances count it in any case."
)

ADDRESS_HELP = (
    "Whoever opens it comes to this page, with the same model, removed blocks, prompt and card. The prompt is the one that was last "
    "written with. Variants and uploads stay here."
)
ADDRESS_MEASURE = "The model is loaded. Measure it on the Model page; the blocks of the address are then chosen by themselves."
ADDRESS_LOAD_HELP = "Nothing is loaded before you press. A local folder is read on the server; any other name is fetched from Hugging Face."
PRESENTER_HELP = (
    "For a room: large type, larger charts, fewer controls. Keys: P and N turn the page, ← and → the cards of the lesson, Esc leaves."
)
