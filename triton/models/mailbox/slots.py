"""What lies in a mailbox and who waits there, without a server around it.

Everything is bounded: bytes, keys, those who wait, poisoned keys; and what nobody takes is
forgotten after its time.
"""

from collections import OrderedDict

import numpy as np

_MAX_REASON = 2000
_EXPIRY_SCAN_S = 0.5


class Refused(Exception):
    """What was asked for is not possible; `is_full` if it may be later."""

    def __init__(self, message, is_full=False):
        super().__init__(message)
        self.is_full = is_full


class Limits:
    """`ttl_s` is how long what nobody takes is kept; the rest are numbers."""

    def __init__(self, ttl_s, max_bytes, max_waiting=1024, max_keys=4096, max_poisoned=4096):
        self.ttl_s = ttl_s
        self.max_bytes = max_bytes
        self.max_waiting = max_waiting
        self.max_keys = max_keys
        self.max_poisoned = max_poisoned


class Slot:
    """Everything known under one key."""

    def __init__(self, expires):
        self.tensors = {}
        # Only what was copied counts: a view of a request goes with the request.
        self.sizes = {}
        self.waiting = []
        self.taken = {}
        self.expires = expires


class Waiting:
    """A take that has not got all its tensors yet; `item` is whatever the owner needs of it."""

    def __init__(self, key, names, deadline_s, item):
        self.key = key
        self.names = names
        self.deadline_s = deadline_s
        self.item = item


class Slots:
    """`takes`: tensor -> how many take it, after which it is forgotten.

    `give(waiting, arrays)` and `fail(waiting, reason)` are called for takes that end here.
    """

    def __init__(self, takes, limits, give, fail):
        self._takes = takes
        self._limits = limits
        self._give = give
        self._fail = fail
        self._slots = {}
        self._poisoned = OrderedDict()  # key -> (reason, when it is forgotten)
        self._waiting = OrderedDict()  # those who wait, those asked last at the end
        self._next_scan = 0.0
        self.bytes = 0
        self.expired = 0

    @property
    def waiting(self):
        """How many wait."""
        return len(self._waiting)

    @property
    def keys(self):
        """How many keys something is known of."""
        return len(self._slots) + len(self._poisoned)

    def put(self, key, arrays, now):
        """Store tensors, or hand them at once to whoever waits. Raises Refused."""
        if key in self._poisoned:
            return
        slot = self._slots.get(key)
        unknown = [name for name in arrays if name not in self._takes]
        again = [n for n in arrays if slot is not None and (n in slot.tensors or n in slot.taken)]
        if unknown or again:
            raise Refused(f"tensors {unknown} are not expected here, {again} were put before")
        slot = slot or self._new_slot(key, now)
        try:
            self._store(slot, arrays)
        finally:
            self._forget_if_done(key, slot)

    def take(self, key, names, deadline_s, now, item):
        """Wait for tensors until the deadline. Raises Refused."""
        unknown = [name for name in names if name not in self._takes]
        if unknown or not names:
            raise Refused(f"cannot give {unknown or 'nothing'}; known are {sorted(self._takes)}")
        if key in self._poisoned:
            raise Refused(self._poisoned[key][0], is_full=True)
        if len(self._waiting) >= self._limits.max_waiting:
            raise Refused(f"{len(self._waiting)} wait here and no more are allowed", is_full=True)
        slot = self._slots.get(key) or self._new_slot(key, now)
        waiting = Waiting(key, names, deadline_s, item)
        slot.waiting.append(waiting)
        self._waiting[waiting] = None
        slot.expires = max(slot.expires, deadline_s)
        self._hand_out(slot)
        self._forget_if_done(key, slot)

    def poison(self, key, reason, now):
        """Whoever waits under this key, now or later, hears that it is in vain."""
        text = f"a tensor will not come: {reason[:_MAX_REASON]}"
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._release(slot)
            for waiting in slot.waiting:
                self._waiting.pop(waiting, None)
                self._fail(waiting, text)
        self._poisoned[key] = (text, now + self._limits.ttl_s)
        while len(self._poisoned) > self._limits.max_poisoned:
            self._poisoned.popitem(last=False)

    def remove(self, waiting):
        """Someone does not wait any more."""
        self._waiting.pop(waiting, None)
        slot = self._slots.get(waiting.key)
        if slot is not None and waiting in slot.waiting:
            slot.waiting.remove(waiting)
            if not (slot.waiting or slot.tensors or slot.taken):
                del self._slots[waiting.key]

    def missing(self, waiting):
        """The tensors that one who waits has not got."""
        slot = self._slots.get(waiting.key)
        return [name for name in waiting.names if slot is None or name not in slot.tensors]

    def overdue(self, now):
        """Those whose deadline has passed; they still wait, until they are removed."""
        return [waiting for waiting in self._waiting if now >= waiting.deadline_s]

    def next_to_ask(self, count):
        """`count` of those who wait, in turn."""
        chosen = list(self._waiting)[:count] if len(self._waiting) <= count else []
        while len(chosen) < min(count, len(self._waiting)):
            first = next(iter(self._waiting))
            self._waiting.move_to_end(first)
            chosen.append(first)
        return chosen

    def expire(self, now):
        """Forget what is too old; returns whether it was looked for, which is not each time."""
        if now < self._next_scan:
            return False
        self._next_scan = now + _EXPIRY_SCAN_S
        for key, slot in list(self._slots.items()):
            if now >= slot.expires and not slot.waiting:
                self.expired += len(slot.tensors)
                self._release(slot)
                del self._slots[key]
        while self._poisoned and next(iter(self._poisoned.values()))[1] <= now:
            self._poisoned.popitem(last=False)
        return True

    def clear(self, reason):
        """Everything is forgotten; who waits hears why."""
        for waiting in self._waiting:
            self._fail(waiting, reason)
        self._waiting.clear()
        self._slots.clear()
        self._poisoned.clear()
        self.bytes = 0

    def _new_slot(self, key, now):
        if len(self._slots) >= self._limits.max_keys:
            raise Refused(f"{len(self._slots)} keys are known and no more allowed", is_full=True)
        slot = self._slots[key] = Slot(now + self._limits.ttl_s)
        return slot

    def _store(self, slot, arrays):
        # Offered first: a component that waits already gets the bytes where they lie.
        slot.tensors.update(arrays)
        self._hand_out(slot)
        kept = {name: slot.tensors[name] for name in arrays if name in slot.tensors}
        sizes = {name: _size_of(array) for name, array in kept.items()}
        size = sum(sizes.values())
        if self.bytes + size > self._limits.max_bytes:
            for name in kept:
                del slot.tensors[name]
            raise Refused(
                f"full: {self.bytes} of {self._limits.max_bytes} bytes are taken, {size} more "
                "were put",
                is_full=True,
            )
        # The request's memory is given back when it is answered: what stays is copied.
        slot.tensors.update({name: np.array(array) for name, array in kept.items()})
        slot.sizes.update(sizes)
        self.bytes += size

    def _hand_out(self, slot):
        """Answer every take that is complete; drop the tensors that all have taken."""
        for waiting in list(slot.waiting):
            # Looked at one by one: each may take the last that another waits for.
            if not all(name in slot.tensors for name in waiting.names):
                continue
            slot.waiting.remove(waiting)
            self._waiting.pop(waiting, None)
            self._give(waiting, {name: slot.tensors[name] for name in waiting.names})
            for name in waiting.names:
                slot.taken[name] = slot.taken.get(name, 0) + 1
                if slot.taken[name] >= self._takes[name]:
                    del slot.tensors[name]
                    self.bytes -= slot.sizes.pop(name, 0)

    def _release(self, slot):
        self.bytes -= sum(slot.sizes.values())
        slot.tensors.clear()
        slot.sizes.clear()

    def _forget_if_done(self, key, slot):
        complete = all(slot.taken.get(name, 0) >= takes for name, takes in self._takes.items())
        unused = not (slot.tensors or slot.taken)
        if (complete or unused) and not slot.waiting and self._slots.get(key) is slot:
            del self._slots[key]


def _size_of(array):
    if array.dtype == np.object_:  # BYTES: an array of references
        return sum(len(item) for item in array.reshape(-1)) + array.nbytes
    return array.nbytes
