"""The longer texts of the Model page."""

MEASURE_HELP = "One pass over the text. After it, moving the span or the ridge is live: the model is not run again."
PRECISION_HELP = (
    "As stored: what the checkpoint was saved in, so that nothing is lost and nothing is made larger (float32 for the demo and for a "
    "quantised GGUF file). float32 is exact. bfloat16 needs half the memory and moves the fit by a few per cent."
)
FOLDER_HELP = (
    "The folder that save_pretrained wrote (config.json, *.safetensors, tokenizer), a GGUF file (model.gguf, or the first of several "
    "parts), a folder with one GGUF file, or the name smollm2."
)
TOKENS_HELP = (
    "Tokens to fit on and to choose by. The suggestion is ten for every unknown of a column of T, held-out tokens beside: a column has as "
    "many unknowns as the model is wide. A refit needs more. Further texts, which nothing else reads, are the test part."
)
LENGTH_HELP = "Longer texts are cut into several sequences."
SEED_HELP = "Decides which texts are drawn and which are held out."
FOREIGN_DEMO = (
    "This text is about the small world that the demo model was trained on. Another model reads other things: distances and fits on this "
    "text say little about it. It is here for a try without a network."
)
OWN_TEXT = (
    "For when no other text is at hand: questions and beginnings are given, every other word is the model's. Real text like what the model will "
    "read is better. It takes as long as generating so many tokens, shown with the time left, and is kept: the same model writes it once."
)
SMOLLM2_TEXT = (
    "What SmolLM2 wrote itself, made beforehand with seeds, so that nobody has to wait for it. Real text is better: a refit on web pages "
    "costs 11 % less KL, on average over six texts, than one on chats and prose of its own."
)
HELD_HELP = (
    "4 or 8 bits make a large model fit while it is measured; its distances move a little. The transform is then merged into the "
    "unquantised checkpoint, so that the pruned model is not quantised."
)
CLOSES = (
    "Held like this, the model can be measured, its span chosen, T fitted and the result merged into its checkpoint on disk. Closed are: **Sweep**, "
    "**Methods**, on Blocks *Find the best places*, *several spans* and *Time it*, on Fit *refits* and *healing*, and on Compare the column "
    "without a transform. Load the model as it is where memory allows, or open the merged folder afterwards."
)
MERGED_LATER = (
    "nothing is merged into these weights. *Save and continue* on the Fit page merges the transform into the model's own checkpoint "
    "and writes the result to a folder."
)
MIX_HELP = "Two texts in one set: chats and prose, or general text and text of your own field. The safer guess where nobody knows what the model will read."
STORED = (
    "The pass writes up to {needed} of activations to the disk (room for {room}): the stream at every boundary, for every token. Every span can "
    "then be fitted at once, and the same text is not measured twice."
)
KEPT = "Fits and variants come back when the same model is loaded and the same text measured."
NOT_STORED = (
    "The activations of this pass take {needed}, and the disk has room for {room} in {place}. The pass would measure distances alone: refits "
    "work, transforms do not. Use fewer tokens, or set REPLACEME_CACHE to a folder on a larger disk."
)
IMAGES_HELP = "This model reads images (beta): its calibration set is a folder of png or jpg files on this machine, with the folders in it."
SKIP_FIRST_HELP = (
    "Many models put a token of huge norm first, which the text after it does not resemble. Weighted fits hardly notice it; plain least "
    "squares does. Distances count it in any case."
)
