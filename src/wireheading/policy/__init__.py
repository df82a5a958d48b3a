"""The policies of many runs on one frozen base model: adapters, sampling, updates.

`Policy` is the interface. Loading a model is in `model`, its chat template and stop tokens in `chat`, the adapters in
`lora`, sampling in `session` and updates in `update`; the other modules serve these.

May import `study`, `tasks` and `inputs`.
"""

import logging
import warnings

from transformers.utils.logging import disable_progress_bar

# Messages of the libraries without use here: bitsandbytes lacks an optional package, gradients are views into one
# tensor, files are being loaded.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
disable_progress_bar()
