"""Consumer groups: joining, syncing, heartbeats, leaving; and looking at groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults

from nebula.broker.apis.lookup import UNKNOWN_OPERATIONS, brokers, node_id
from nebula.cluster.groups import Group, GroupError, Join, Joined, Synced
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

GROUP_KEY_TYPE = 0
KEY_TYPES = (0, 1, 2)
"""Groups, transactions, share groups; only the first have coordinators here."""
COORDINATOR_S = 1.0
"""How long FindCoordinator waits for the groups' topic and its leaders, the first time."""


def find_coordinator(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. The groups' topic is made by the first that asks."""
    keys = body["coordinator_keys"] if version >= 4 else [body["key"]]

    def known() -> bool:
        places = [node.coordinators.place_of(key) for key in keys]
        return all(place is not None and node.view.live_leader(place[1])[0] is not None for place in places)

    def answer(_none: None) -> dict[str, Any]:
        rows = [_coordinator(node, key, body.get("key_type", GROUP_KEY_TYPE), connection) for key in keys]
        return {"throttle_time_ms": 0, "coordinators": rows} if version >= 4 else {"throttle_time_ms": 0, **rows[0]}

    if body.get("key_type", GROUP_KEY_TYPE) != GROUP_KEY_TYPE or known():
        return answer(None)
    made = node.coordinators.ensure_topic()
    return made.addCallback(lambda _none: node.view.settled(known, COORDINATOR_S)).addCallback(answer)


def _coordinator(node: NebulaNode, key: str, key_type: int, connection: Any) -> dict[str, Any]:
    row = {"key": key, "node_id": -1, "host": "", "port": -1, "error_code": 0, "error_message": None}
    if key_type not in KEY_TYPES:
        return {**row, "error_code": errors.INVALID_REQUEST, "error_message": f"there is no kind {key_type} of key"}
    if key_type != GROUP_KEY_TYPE:
        text = "only consumer groups have coordinators here: transactions are not built"
        return {**row, "error_code": errors.COORDINATOR_NOT_AVAILABLE, "error_message": text}
    place = node.coordinators.place_of(key)
    leader = node.view.live_leader(place[1])[0] if place is not None else None
    wanted = node_id(node, leader)
    found = next((b for b in brokers(node, connection) if b["node_id"] == wanted), None)
    if found is None:
        text = "the group's coordinator is being elected; try again"
        return {**row, "error_code": errors.COORDINATOR_NOT_AVAILABLE, "error_message": text}
    return {**row, "node_id": wanted, "host": found["host"], "port": found["port"]}


def join_group(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call; answered when the rebalance is over."""
    session = body["session_timeout_ms"]
    ask = Join(
        body["member_id"], body.get("group_instance_id"), connection.client_id or "", connection.peer_host, session,
        body["rebalance_timeout_ms"] if version >= 1 else session, body["protocol_type"],
        tuple((row["name"], bytes(row["metadata"])) for row in body["protocols"]), version >= 4,
        body.get("reason") or "",
    )  # fmt: skip
    done: Deferred[dict[str, Any]] = Deferred()

    def reply(joined: Joined) -> None:
        done.callback(_joined(joined, version))

    try:
        _, group = node.coordinators.group(body["group_id"])
    except GroupError as refused:
        return _joined(Joined(refused.kafka_code, ask.member_id), version)
    group.join(ask, node.coordinators.now(), reply)
    return done


def _joined(joined: Joined, version: int) -> dict[str, Any]:
    members = [{"member_id": m, "group_instance_id": i, "metadata": data} for m, i, data in joined.members]
    return {
        "throttle_time_ms": 0, "error_code": joined.error, "generation_id": joined.generation,
        "protocol_type": joined.protocol_type, "protocol_name": joined.protocol, "leader": joined.leader,
        "skip_assignment": joined.skip_assignment, "member_id": joined.member_id, "members": members,
    }  # fmt: skip


def sync_group(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call; answered when the leader's assignment is committed."""
    done: Deferred[dict[str, Any]] = Deferred()

    def reply(synced: Synced) -> None:
        done.callback(_synced(synced))

    try:
        _, group = node.coordinators.group(body["group_id"])
    except GroupError as refused:
        return _synced(Synced(refused.kafka_code))
    assignments = {row["member_id"]: bytes(row["assignment"]) for row in body["assignments"]}
    protocol = (body.get("protocol_type"), body.get("protocol_name"))
    group.sync(
        body["member_id"], body.get("group_instance_id"), body["generation_id"], protocol, assignments,
        node.coordinators.now(), reply,
    )  # fmt: skip
    return done


def _synced(synced: Synced) -> dict[str, Any]:
    return {
        "throttle_time_ms": 0, "error_code": synced.error, "protocol_type": synced.protocol_type,
        "protocol_name": synced.protocol, "assignment": synced.assignment,
    }  # fmt: skip


def heartbeat(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call."""

    def beat(group: Group) -> int:
        now = node.coordinators.now()
        return group.heartbeat(body["member_id"], body.get("group_instance_id"), body["generation_id"], now)

    return {"throttle_time_ms": 0, "error_code": _known(node, body["group_id"], beat)}


def _known(node: NebulaNode, name: str, call: Callable[[Group], int]) -> int:
    """The error code of a call into a group that must exist already."""
    try:
        shard = node.coordinators.shard(name)
    except GroupError as refused:
        return refused.kafka_code
    group = shard.groups.get(name)
    return call(group) if group is not None else errors.UNKNOWN_MEMBER_ID


def leave_group(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call; from version 3 for several members at once."""
    if version < 3:
        code = _leave(node, body["group_id"], {"member_id": body["member_id"]})
        return {"throttle_time_ms": 0, "error_code": code}
    try:
        node.coordinators.shard(body["group_id"])
    except GroupError as refused:
        return {"throttle_time_ms": 0, "error_code": refused.kafka_code, "members": []}
    rows = [
        {"member_id": row["member_id"], "group_instance_id": row.get("group_instance_id"),
         "error_code": _leave(node, body["group_id"], row)}
        for row in body["members"]
    ]  # fmt: skip
    return {"throttle_time_ms": 0, "error_code": 0, "members": rows}


def _leave(node: NebulaNode, name: str, row: dict[str, Any]) -> int:
    def gone(group: Group) -> int:
        now = node.coordinators.now()
        return group.leave(row["member_id"], row.get("group_instance_id"), now, row.get("reason") or "")

    return _known(node, name, gone)


# ── looking at groups ───────────────────────────────────────────────────────────────────────────────────────────────


def describe_groups(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call. A group nobody knows is Dead, from version 6 with an error (KIP-1043)."""
    return {"throttle_time_ms": 0, "groups": [_described(node, name, version) for name in body["groups"]]}


def _described(node: NebulaNode, name: str, version: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "error_code": 0, "error_message": None, "group_id": name, "group_state": "", "protocol_type": "",
        "protocol_data": "", "members": [], "authorized_operations": UNKNOWN_OPERATIONS,
    }  # fmt: skip
    try:
        group = node.coordinators.shard(name).groups.get(name)
    except GroupError as refused:
        return {**row, "error_code": refused.kafka_code}
    if group is None:
        missing = {"error_code": errors.GROUP_ID_NOT_FOUND, "error_message": f"Group {name} not found."}
        return {**row, "group_state": "Dead", **(missing if version >= 6 else {})}
    stable = group.state == "Stable"
    members = [
        {
            "member_id": m.member_id, "group_instance_id": m.instance_id, "client_id": m.client_id,
            "client_host": m.client_host, "member_metadata": m.metadata(group.protocol) if stable else b"",
            "member_assignment": m.assignment if stable else b"",
        }
        for m in group.members.values()
    ]  # fmt: skip
    return {
        **row, "group_state": group.state, "protocol_type": group.protocol_type, "members": members,
        "protocol_data": (group.protocol or "") if stable else "",
    }  # fmt: skip


def list_groups(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: the groups this node coordinates."""
    states = {state.lower() for state in body.get("states_filter") or []}
    types = {kind.lower() for kind in body.get("types_filter") or []}
    if node.coordinators.loading:
        return {"throttle_time_ms": 0, "error_code": errors.COORDINATOR_LOAD_IN_PROGRESS, "groups": []}
    rows = [
        {"group_id": group.name, "protocol_type": group.protocol_type, "group_state": group.state,
         "group_type": "classic"}
        for shard in node.coordinators.shards()
        for group in shard.groups.values()
        if (not states or group.state.lower() in states) and (not types or "classic" in types)
    ]  # fmt: skip
    return {"throttle_time_ms": 0, "error_code": 0, "groups": rows}


def delete_groups(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: groups without members, with their offsets."""
    waits = [_delete(node, name) for name in body["groups_names"]]
    return gatherResults(waits).addCallback(lambda rows: {"throttle_time_ms": 0, "results": rows})


def _delete(node: NebulaNode, name: str) -> Deferred[dict[str, Any]]:
    done: Deferred[dict[str, Any]] = Deferred()

    def answer(code: int) -> None:
        done.callback({"group_id": name, "error_code": code})

    try:
        shard = node.coordinators.shard(name)
    except GroupError as refused:
        answer(refused.kafka_code if name else errors.GROUP_ID_NOT_FOUND)
        return done
    group = shard.groups.get(name)
    if group is None:
        answer(errors.GROUP_ID_NOT_FOUND)
    elif group.members:
        answer(errors.NON_EMPTY_GROUP)
    else:
        shard.delete(group, answer)
    return done
