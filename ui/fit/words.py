"""The longer texts of the Fit page: fits, refits, single tokens, healing, kept variants."""

KEEP_WHY = "Compare, Benchmarks and Export work with saved variants: a saved fit is a pruned model with a name."
KEEP_HELP = "Saving merges the fit into the weights and checks the result: on random tokens the merged model must give the same outputs as the hooked one."
STAY_HELP = "To fit something else beside it; every saved variant can be compared."
PENALTY_HELP = (
    "Strength of a pull of T towards 0; T = identity would add L1 + L2 to the loss. L1 makes entries exactly 0 (proximal gradient)."
)
STEPS_HELP = "Steps before the method gives up; for Adam, passes over the stored tokens. Empty: its default."
ROUNDS_HELP = "How often the tokens are weighed anew, at most. Empty: its default."
DROP = "As the plan or the sweep says. Any other method can be chosen; this one is then offered no more."
ATTENTION_HELP = "Off: of a block only the output projection is solved. The gradient steps of a deep refit move all weights all the same."
SPECTRUM_HELP = "Singular values of T. All at 1: T only rotates. Far from 1: it stretches or drops directions."
MATRIX_T_HELP = "T minus the identity. Plain: T passes a direction on unchanged. Strong colours: what the removed blocks used to do."
SLOW_STEPS = "This method takes gradient steps, so it does not follow the slider."
SLOW_WIDE = "At this width a fit takes about {time} here, so it is made beside the page; the page shows it when it is there."
SLOW_REFIT = "A refit runs the model again, so it does not follow the slider. It takes about {time} here."
SLOW_SPANS = "A fit of several spans runs the model again, so it does not follow the slider."
TO_BEAT = "What the refit has to beat: 1 is the direction of the original's stream where the cut ends. Its own figure stands here when it is made."
LOOKAHEAD_HELP = (
    "How many blocks before the carrier already do a share of the removed blocks' work. 'By held-out error' tries 0, 1 and 2 and "
    "goes on with what is closest to the original where the span ends."
)
FEW_TOKENS = (
    "This set has {n:,} tokens; a refit of this model wants about {wanted:,}, ten for every weight in a row of its widest layer. "
    "The Model page sets how many are read."
)
STEPS_CAPTION = (
    "Circle: the block's output as it comes out of the pruned model. Dot: after its weights were solved. 0 % is the original's residual stream. "
    "Errors of later blocks include what the blocks before them left. Tokens weigh 1/length, as in the fit, so that one very long token, an attention sink, "
    "lowers the share of all; the bars above count every token alike."
)
FIT_TIME_HELP = "From the sums of the calibration pass; the model is not touched."
REFIT_TIME_HELP = "The model was run on the calibration set again, block by block."
SEPARATE_HELP = (
    "Merged, T costs nothing: it disappears in the weights of the carrier. As a layer of its own it adds parameters and time, and can "
    "stand where a norm follows the output projection. Compare both."
)
HEAL_HELP = (
    "A fit solves equations. Healing is training: the pruned model reads the calibration text beside the original, and its "
    "weights are moved, step by step, so that it expects the same next words. The result is a new variant with 'healed (training)' in its name. "
    "It pays after a refit: on SmolLM2 without eight blocks, 200 steps of 512 tokens took 17 minutes on one core and lowered KL on text like the calibration set from "
    "1.19 to 0.64 after plain removal, and from 0.60 to 0.52 after a refit around the cut; on web pages from 1.08 to 0.70, and from 0.75 to 0.64. "
    "Three times the steps on the same text gave 2 % more."
)
HEAL_STEPS_HELP = "One step moves the weights once. The rate rises at the start and then falls to 0."
HEAL_TOKENS_HELP = "What is read before the weights move, at most. Fewer make a step quicker and noisier; memory grows with them too."
HEAL_RATE_HELP = (
    "How far a step moves at most. Too high: the loss jumps up; too low: it hardly falls. Empty: a rate that suits the model's width."
)
HEAL_OTHER_TEXT = "This variant was fitted on another calibration set than the one that is measured now. Measure that set again to heal it."
HEAL_CURVE_HELP = (
    "KL: how far the pruned model's next-token probabilities are from the original's. The vertical line is the step that was kept: least KL on held-out text. "
    "Where the held-out line rises while the other falls, the model learns the train text by heart."
)
TOKEN_HELP = "Relative error: |stream − target|² / |target|² of the residual stream behind the span; 0 % is rebuilt exactly, 100 % as bad as nothing there."
TOKEN_JOB_HELP = "Runs the model on up to 40 held-out texts, with the fit, and removed without a transform."
TOKEN_STRIP_HELP = (
    "the stronger the tint, the larger the relative error; double underline: one of the worst tenth of all tokens; outlined: the chosen token; "
    "grey: not held in the token sample."
)
MANAGE_HELP = "A copy shares every weight with its original, so that it costs nothing: heal the copy, compare both."
