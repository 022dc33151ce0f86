"""The longer texts of the Benchmarks page."""

LIMIT_HELP = "0: all of them. Fewer is faster, with wider error bars. lm-eval takes the first questions of each task."
SHOTS_HELP = "So many solved examples stand in the prompt before each question. Empty: what the suite or the task says, mostly none."
SEED_HELP = "Draws the few-shot examples, and makes the prompts of the generation tasks. The same seed asks every model the same."
BATCH_HELP = "Questions that run through the model at once. It changes the speed, not the score. 'auto': what the memory allows."
CHAT_HELP = (
    "Each question as a message of a user, in the form that this model was trained to answer. Off by default, as in lm-eval: published "
    "figures mostly are without. It changes the score, so compare like with like. The generation tasks are asked in plain text always."
)
TURNS_HELP = "Every solved example as a question and an answer of its own, as in lm-eval; off: all of them in one message."
SYSTEM_HELP = "Stands before every question: as the system message of a chat, or as plain text without the chat template. Empty: none."
WRITING_HELP = (
    "Multiple choice only asks which of a few answers is most likely; a damaged model can still choose well and no longer generate. Here it "
    "generates, and a program checks the text. These scores stay out of the average."
)
OWN_HELP = (
    "Multiple choice: question, choices, answer (a choice's text, or its number from 0). Cloze: text and the answer that goes on from it."
)
OWN_EXAMPLES = {
    "Multiple choice, one question per line:": '{"question": "Where do fish live?", "choices": ["in trees", "in water"], "answer": "in water"}',
    "Or, in a file of its own, cloze: the model must go on with the answer.": '{"text": "The capital of France is", "answer": "Paris"}',
}
BARS_HELP = "Every system answers the same questions. Bars: share of right answers in per cent; thin lines at their ends: one standard error; the line across a row: the chance level."
TESTS_HELP = (
    "Both answered the same questions, so only answers that changed count (exact McNemar test); perplexity, repetition and parts of a point are compared by "
    "drawing the questions anew for both together (paired bootstrap). p: how often chance alone would look like this. Because many tasks "
    "are tested, the last p is corrected for their number (Holm)."
)
ITEMS_HELP = "✓ right, ✗ wrong. Choose a row to read the whole prompt; the marks of 'changed' are those of the original and '{other}'."
MARGIN_HELP = (
    "By how many nats '{other}' finds the right choice likelier than the best wrong one; below 0 it is wrong. Near 0 a breath decides."
)
LOGLIKS_HELP = (
    "Log-likelihood of each choice in nats, nearer to 0 is likelier; ► the answer. Where a task is scored per character, the answer is the "
    "likeliest per character."
)
IMPORT_HELP = "results_*.json that lm-eval 0.4 wrote, and the samples_*.jsonl beside it, so that the questions can be compared one by one."
KEPT_CAPTION = "Results are kept on this machine by weights, task and settings, and are found again in another session."
WRITING_SAID = (
    "Here every system generates, and a program checks the text: a damaged model can still choose well and no longer generate. Repetition: "
    "share of runs of four tokens that stood in its text before. These scores stay out of the average."
)
ITEMS_ALT = "the questions that pass the filters, with a mark for every system; choose a row to read it in full"
