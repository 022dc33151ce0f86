"""The texts of the lesson. Figures are filled in from what was measured, never written here."""

TITLES = (
    "Why can whole blocks go?",
    "What runs through the blocks?",
    "What is inside a block?",
    "How is the matrix read?",
    "Which blocks would you take out?",
    "What does it cost to remove blocks?",
    "What can one matrix repair?",
    "Can you read the difference?",
    "What goes wrong?",
    "What does a refit add?",
    "What does a real model lose?",
    "What is worth remembering?",
)

LEADS = (
    "A language model is a row of **blocks** (layers). Each block adds a correction to what runs through it. In the middle of the row the "
    "corrections are small: take one away, and the blocks after it hardly notice.",
    "One vector for every token: the **residual stream**. A block reads it and *adds* its output to it. Nothing is overwritten. "
    "So when a block is missing, the stream simply runs on, a little less corrected.",
    "A block takes two detours from the stream. **Attention** lets a token look at the tokens before it; the **MLP** works on each token "
    "alone. Both read the stream, and both *add* what they found. Nothing else touches it.",
    "Each cell is one **span**, a run of neighbouring blocks: its row is the first block that goes, its column the last. "
    "**Strong colour: the residual stream leaves the span almost as it entered**, so the blocks do little.",
    "Choose the **{length}** that the model will miss least. Click one of the framed cells, or a button. "
    "Then look: the blocks were really removed at every place, and the damage measured.",
    "Take the blocks out and put **nothing** in their place: *removed, no transform*. The model still speaks. How well depends on where the gap is.",
    "The block before the gap, the **carrier**, gets one matrix T behind its output projection, so that it adds what the missing blocks would "
    "have added. T is **solved, not trained**, from a little text, and merged into the carrier's weights: nothing is added to the model.",
    "The same prompt, the same settings, always the most likely next token. Only the models differ. **Underlined** words are not those of "
    "the original.",
    "Six ways to be disappointed, each measured on the same model. Longer is worse: KL on test text, or the error where it says so.",
    "One matrix sees only the output of the carrier. A **refit** solves the carrier's own weights anew; *around the cut*, those of the blocks on "
    "both sides of it; or those of every block after it. Still a closed form, still nothing added – but more is changed.",
    "{blocks} of the {of} blocks of a real language model go. Two choices decide what it loses.",
    "",
)

POLL_INTRO = "everyone predicts from an own browser, with a name or without one; this page shows the tally as it comes, and the answer when you reveal it."
POLL_GONE = "The poll of this address is over. You can play the round by yourself."
KL_HELP = (
    "**KL** says how far the next-token probabilities moved away from the original's, in nats per token; 0 is the same model. Here "
    "{small:.2f} has the same most likely next token at {small_same:.0%} of the positions (top-1 agreement), {large:.2f} at {large_same:.0%}."
)
RIVER = "stream after the block = stream before + what the block adds"
POINTS = "Points = 100 × the least KL ÷ your KL. 100 is the best place; 50 means twice its damage."
DISTANCE_IS_NOT_DAMAGE = "The least *distance* was at {closest} ({distance:.3f}), the least *damage* at {best} (KL {kl:.3f}). Distance is a good guess, not a promise."
OVERLAP = "Your 95 % interval and that of the best place overlap: this much text cannot quite tell them apart."
DISTANCE_WAS_RIGHT = "This time the least distance ({distance:.3f}) and the least damage (KL {kl:.3f}) are at the same place: {best}."

WHERE = {
    "closest": "Least distance",
    "first": "First blocks",
    "last": "Last blocks",
}

GALLERY = {
    "first": (
        "The first blocks",
        "The early blocks turn words into what all later blocks build on. Remove them, and everything after reads the wrong thing.",
    ),
    "last": (
        "The last blocks",
        "The late blocks turn the stream into next words, and some end what earlier ones began. One matrix mends much of that, and still much is lost.",
    ),
    "text": (
        "The wrong text",
        "T repairs what the calibration text uses. Fitted on one kind of text only, here {worst}, it can cost more ({worst_kl:.2f}) than no "
        "matrix at all ({bare:.2f}).",
    ),
    "tiny": (
        "A tiny calibration set",
        "T has {unknowns:,} unknowns. With few tokens it learns them by heart: nearly no error at home, a large one outside. The "
        "app's pull towards zero (ridge) keeps such a fit near what no matrix costs; only more text makes it good.",
    ),
    "many": (
        "Too many at once",
        "Damage does not grow in step with the number of blocks: {many} in place of {few} are {times} times as many, and cost {grown:.1f} times as much.",
    ),
    "distance": (
        "Trusting the distance alone",
        "The distance ranks places roughly, and the least distance need not be the least damage. Measure the first few places.",
    ),
}

REFIT_NOTE = (
    "A refit has many more unknowns than T, and what it learns is the calibration text: on text unlike it the gain is smaller. "
    "Compare and Benchmarks are there to look."
)

TEXTS = {"WikiText-2": "Text like the calibration text (WikiText-2)", "C4": "Other text (web pages, C4)"}
STAND_INS = {
    "paper_drop": "no matrix",
    "paper": "one matrix",
    "drop": "no matrix",
    "least_squares": "one matrix",
    "refit": "refit of the carrier",
    "local_refit": "refit around the cut",
    "exchange_refit": "neurons exchanged",
    "sequential_refit": "refit of all after it",
}
SINK = (
    "{nearest} have the least distance. But block {first} makes the **attention sink**: one token whose vector is far longer than all others, where later "
    "heads look when nothing else matters. A mean over all tokens cannot see a single one. The app looks for it, and suggests the next best place."
)
INSTEAD = (
    "At {there} one matrix takes the KL from {drop:.2f} to {least_squares:.2f}, a refit of the carrier to {refit:.2f}. The app recommends to go further: neurons "
    "of the removed blocks take the place of those around the cut that matter least: {exchange_refit:.2f}. Without the sink one matrix still costs {paper:.2f}."
)
ANSWERS = (
    "They fall towards guessing. Without the sink one matrix answers as guessing does: **{paper:.1%}**. With it a refit with exchanged neurons answers **{exchange_refit:.1%}**, no "
    "matrix {drop:.1%} (p = {p}). A small model has little to spare. The paper's models have fifty times as many weights, and keep more."
)

REMEMBER = (
    "**Depth is redundant in the middle.** Without {least} alone the KL is only {single:.3f}.",
    "**The distance is a map, not the land.** It ranks places from one pass over some text; KL on test text says what a removal costs.",
    "**One solved matrix repairs much.** Of the {n_places} places for {blocks} blocks it lowers the KL at {n_better}; most at {saved_at}, from "
    "{saved_cut:.2f} to {saved_fit:.2f}.",
    "**Text matters.** Enough tokens, of the kind that the model will read, and errors on text that the fit never saw.",
    "**A refit goes further:** at {closest} from {closest_fit:.3f} to {closest_refit:.3f}. It also changes more.",
)

NO_TRACES = (
    "The lesson's figures are missing (assets/lesson). Make them with `python -m demo.lesson_traces`, which takes some minutes, or copy the "
    "folder from the project."
)
LIVE_HELP = "Three of the first cards can show the loaded model. The others were pruned and measured beforehand."
HARM = "At {places} it does not help: a small error of the stream is no promise, so look at what the model says (Compare)."
ATTENTION = "{heads} heads of {head} numbers each{shared}"
MLP = "wider inside than the stream: gate and up open it, down brings it back"
T_LANDS = (
    "When blocks are cut out, **T** goes behind `{writer}` of the block before the gap. T has {width:,} × {width:,} = {unknowns:,} numbers, and "
    "T times `{writer}` has the shape that was there before, {shape}: **T is merged in, and nothing is added to the model.**"
)
EACH_BLOCK = "Each of the {blocks} blocks of {model} has {n:,} numbers. All are learnt in training; T alone is solved afterwards."
SHAPES_READ = "A norm, not drawn, scales the vector before each detour. Shapes are read off {model}. The figures of the other cards: T fitted on {tokens:,} tokens."
BLOCK_ALT = (
    "The residual stream, a vector of {width:,} numbers, runs past two detours: attention with {heads} heads, and the MLP. Each reads the "
    "stream and adds to it. T is merged into the last weight of the MLP. The table below has every shape."
)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def number(n: int) -> str:
    """'three'; figures above twelve."""
    return _NUMBERS[n] if n < len(_NUMBERS) else str(n)
