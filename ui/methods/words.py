"""The longer texts of the Methods page."""

INTRO = (
    "Every method prunes this model to the same budget: a share of the blocks, or as many parameters where a method narrows them. Each "
    "finished row is kept, so that a run that was stopped goes on where it was, and more methods can be added later."
)
METHODS_HELP = (
    "This project's methods stand first, then the field's, each from its paper's algorithm. 'Trains' means that weights are moved by gradient "
    "steps; 'in memory' that the result fits no plain configuration."
)
SHARES_HELP = "How much of the depth goes."
TOKENS_HELP = "Test text for KL and perplexity, which no method has read. More tokens, narrower intervals, and longer runs."
ITEMS_HELP = {
    "demo": "Questions of each demo benchmark, for the relative accuracy. 0 leaves the benchmarks out, which is faster.",
    "plain": (
        "Questions of each task of the offline suite in plain English, for the relative accuracy: 10 of each are some 15,000 tokens to read, "
        "for every row. 0 leaves the benchmarks out, which is faster."
    ),
}
NOT_IN_MEMORY = (
    "The methods prune the model in memory, and this one is held quantised or spread over devices. Load it unquantised on one device."
)
FIGURES = (
    "KL: nats per token to the original, 0 is no change. Relative accuracy: the benchmark average as a share of the original's. In brackets: 95 % "
    "intervals. Parameters: share of the whole model that is gone. Seconds: to choose and to prune, checks left out. Trains: whether weights are moved by gradient steps. ms/token: "
    "of this machine, which other work makes scatter. Plain model: whether the result is a folder that transformers loads as it is; what is not "
    "exists in memory alone."
)
CHART = "Each point is one method at one share; the line through it is its 95 % interval. Further left is nearer to the original."
