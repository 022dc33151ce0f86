"""The longer texts of the Export page."""

RELOADED = "It was loaded back and is equal to the model in memory."
MERGED_ON_DISK = "All but the merged weights are bit for bit those of the original checkpoint, and it was loaded back as a plain model."
MERGED_SAVED = "This variant was written when it was kept, because its model is held quantised or spread; there is nothing left to export."
TEXT_LEFT = "The run config can then be repeated only by someone who has this text; the model card says so."
PROOF_TO_COME = "Made when the folder or the zip is written; if it fails, nothing is left behind."
ZIP_HELP = (
    "For another machine than the server's. It is the same folder, read back and checked before it is packed; it waits in a temporary place "
    "until another one is packed, the session ends or the server stops."
)
ZIP_TOO_LARGE = "These weights come to {size}, and a zip is offered up to {most}: a browser's download passes through the server's memory. Write a folder."
EXPORT_HELP = (
    "The folder is written under a temporary name, loaded back, compared with the model in memory and only then renamed. "
    "It opens with plain transformers."
)
SEPARATE_STAYS = (
    "This variant holds T as a layer of its own. A plain model folder has no place for such a layer, so the variant stays in the app: "
    "compare it and score it here. To export it, fit it again with T merged."
)
PUSH_NAME_HELP = "OWNER/NAME, the owner being you or an organisation you write for. It is private unless you say otherwise."
PUSH_LOGIN = (
    "This server has no login for the Hugging Face hub. Set the environment variable HF_TOKEN before you start it, or run `hf auth login` once "
    "on its machine. The token is never typed into this page."
)
