"""What the forward of every network takes and gives besides its tensors: what users of transformers expect."""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any

# Outputs that a call asks for, or the config for every call.
FLAGS = ("output_attentions", "output_hidden_states")
# What a processor makes where it is asked to, whichever detector reads it.
EXTRA_FEATURES = ("patch_features",)


def network_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the ``forward`` of a network.

    - ``return_dict=False``, of the call or of the config, gives a tuple of the outputs that are not ``None``.
    - `FLAGS` that the forward takes, and that the call leaves out, are the config's.
    - An argument of a name that the forward does not take raises ``TypeError`` with a suggestion. What a processor
      makes beside the inputs, the class's `unread_inputs` and `EXTRA_FEATURES`, is left out.
    """
    parameters = inspect.signature(forward).parameters
    names = tuple(parameters)[1:]
    flags = tuple((name, names.index(name)) for name in FLAGS if name in names)

    @wraps(forward)
    def wrapper(self, *args, return_dict: bool | None = None, **kwargs):
        taken = {}
        for name, value in kwargs.items():
            if name in names:
                taken[name] = value
            elif name not in (*self.unread_inputs, *EXTRA_FEATURES):
                raise TypeError(_unknown(type(self).__name__, name, names))
        for name, index in flags:
            if index >= len(args) and taken.get(name) is None:
                taken[name] = getattr(self.config, name)
        outputs = forward(self, *args, **taken)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs.to_tuple() if as_dict is False else outputs

    # Whoever reads the signature, as Trainer does, must see what may be given.
    added = inspect.Parameter("return_dict", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=bool | None)
    wrapper.__signature__ = inspect.Signature([*parameters.values(), added])
    return wrapper


def _unknown(owner: str, name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f"{owner} takes no argument {name!r}. It takes {', '.join(names)} and return_dict.{meant}"


__all__ = ["network_forward"]
