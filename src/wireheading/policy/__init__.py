"""The policies of many runs on one frozen base model: adapters, sampling, updating.

`Policy` is the whole interface; each of its two verbs has a module (`sampling`, `updating`), as have the model
(`model`), its adapters (`lora`) and its language of turns and stop tokens (`chat`).
"""

import logging
import warnings

from transformers.utils.logging import disable_progress_bar

# What the libraries say that is no news: bitsandbytes misses an optional package as soon as it is imported, autograd
# adds to gradients that are views into one tensor, and small files load in no time.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
disable_progress_bar()
