"""`provider.restore` and `provider.forget`: pay now what is owed to the live provider, or drop it."""

from __future__ import annotations

from autotuned.documents.provider import ForgetDocument, RestoreDocument
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, Services
from autotuned.shared import wire


class ForgetParams(Params):
    """Without `yes` nothing is dropped: the answer says what a restore would do."""

    yes: bool = False


def methods(services: Services) -> list[Method]:
    """The live provider, beyond what `status` says of it."""

    async def restore(_: Connection, __: Params) -> RestoreDocument:
        restored = await services.live.restore_now()
        return {"restored": restored, "lease": services.live.public()}

    async def forget(_: Connection, params: ForgetParams) -> ForgetDocument:
        forgotten, would = await services.live.forget(yes=params.yes)
        return {"forgotten": forgotten, "would": would, "lease": services.live.public()}

    drops = "drop what is owed to a live provider that cannot be brought back"
    tries = "try now to bring a drained provider back"
    return [
        Method("provider.restore", tries, restore, acts=True),
        Method("provider.forget", drops, forget, (wire.BUSY,), acts=True),
    ]
