"""CreateTopics, DeleteTopics, and creation on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, gatherResults, succeed

from nebula.broker.apis.lookup import NO_ID, topic_of
from nebula.cluster.commands import CreateTopic, DeleteTopic
from nebula.cluster.configs import InvalidConfig, effective, validate
from nebula.cluster.placement import place
from nebula.cluster.topics import InvalidTopic, validate_name
from nebula.model import NebulaError
from nebula.wire import errors

if TYPE_CHECKING:
    from nebula.broker.node import NebulaNode

LEADERS_S = 1.0
"""How long CreateTopics waits for the new partitions' leaders before it answers all the same."""
MAX_PARTITIONS = 10_000
"""Of one topic: each is a Raft group with files of its own on every replica."""
KINDS = {
    "InvalidTopic": errors.INVALID_TOPIC_EXCEPTION,
    "InvalidConfig": errors.INVALID_CONFIG,
    "InvalidPlacement": errors.INVALID_REPLICA_ASSIGNMENT,
}
"""Refusals of the controller's state machine that are not "it exists"."""


class TopicRefused(NebulaError):
    """A topic cannot be created or deleted as asked; carries Kafka's code."""

    code = "NEB-1101"

    def __init__(self, kafka_code: int, text: str) -> None:
        super().__init__(text)
        self.kafka_code = kafka_code


def plan(
    node: NebulaNode, name: str, partitions: int, replication: int, assignments: list[dict[str, Any]],
    configs: Mapping[str, str],
) -> CreateTopic:  # fmt: skip
    """The command that creates `name`, checked.

    :raises TopicRefused: with Kafka's error code and a text.
    """
    state = node.view.state
    if state is None:
        raise TopicRefused(errors.COORDINATOR_NOT_AVAILABLE, "the cluster is not formed yet")
    try:
        validate_name(name)
        validate(configs)
    except InvalidTopic as bad:
        raise TopicRefused(errors.INVALID_TOPIC_EXCEPTION, str(bad)) from bad
    except InvalidConfig as bad:
        raise TopicRefused(errors.INVALID_CONFIG, str(bad)) from bad
    if name in state.topics.topics:
        raise TopicRefused(errors.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    replicas = _assigned(state, assignments) if assignments else _placed(node, state, partitions, replication)
    topic_id = "%032x" % node.rng.getrandbits(128)
    return CreateTopic(name, topic_id, tuple((0, names) for names in replicas), dict(configs))


def _placed(node: NebulaNode, state: Any, partitions: int, replication: int) -> tuple[tuple[str, ...], ...]:
    count = node.settings.partitions if partitions == -1 else partitions
    if not 1 <= count <= MAX_PARTITIONS:
        raise TopicRefused(
            errors.INVALID_PARTITIONS, f"Number of partitions must be 1 to {MAX_PARTITIONS}, not {count}."
        )
    names = sorted(state.nodes, key=lambda n: state.nodes[n].node_id)
    factor = min(3, len(names)) if replication == -1 else replication
    if not 1 <= factor <= len(names):
        text = f"Replication factor: {factor} larger than available brokers: {len(names)}."
        raise TopicRefused(errors.INVALID_REPLICATION_FACTOR, text)
    load: dict[str, int] = dict.fromkeys(names, 0)
    for topic in state.topics.topics.values():
        for info in topic.partitions:
            load[info.replicas[0]] = load.get(info.replicas[0], 0) + 1
    return place(names, count, factor, load)


def _assigned(state: Any, assignments: list[dict[str, Any]]) -> tuple[tuple[str, ...], ...]:
    names = {info.node_id: name for name, info in state.nodes.items()}
    rows = sorted(assignments, key=lambda row: row["partition_index"])
    if [row["partition_index"] for row in rows] != list(range(len(rows))):
        raise TopicRefused(errors.INVALID_REPLICA_ASSIGNMENT, "partitions must be numbered from 0 without gaps")
    for row in rows:
        ids = row["broker_ids"]
        if not ids or len(set(ids)) != len(ids) or any(i not in names for i in ids):
            raise TopicRefused(errors.INVALID_REPLICA_ASSIGNMENT, f"replicas {ids} are not distinct known brokers")
    return tuple(tuple(names[i] for i in row["broker_ids"]) for row in rows)


def create(node: NebulaNode, command: CreateTopic) -> Deferred[Any]:
    """Submit; fires when the topic exists, fails with TopicRefused when somebody was first."""
    assert node.controller is not None

    def judged(outcome: Any) -> Any:
        if isinstance(outcome, dict) and outcome.get("error"):
            raise TopicRefused(KINDS.get(outcome.get("kind", ""), errors.TOPIC_ALREADY_EXISTS), str(outcome["error"]))
        return outcome

    return node.controller.submit(command).addCallback(judged)


def ensure_topic(node: NebulaNode, name: str) -> Deferred[Any]:
    """Create `name` with the defaults unless it exists or is being created."""
    if topic_of(node, name, None) is not None or name in node.creating or not node.settings.auto_create:
        return succeed(None)
    try:
        command = plan(node, name, -1, -1, [], {})
    except TopicRefused as refused:
        return fail(refused)
    node.creating.add(name)

    def over(outcome: Any) -> Any:
        node.creating.discard(name)
        return outcome

    done = create(node, command).addBoth(over)
    return done.addErrback(_swallow)


def _swallow(failure: Any) -> None:
    """The client asks again; what went wrong is told to whoever asks with CreateTopics."""
    failure.trap(NebulaError)


def create_topics(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: each topic on its own; a name asked for twice is refused, once, as in Kafka."""
    names = [t["name"] for t in body["topics"]]
    once = {t["name"]: t for t in body["topics"]}
    waits = [_create_one(node, t, body["validate_only"], names.count(name) > 1) for name, t in once.items()]
    return gatherResults(waits).addCallback(lambda rows: {"throttle_time_ms": 0, "topics": rows})


def _create_one(node: NebulaNode, wanted: dict[str, Any], validate_only: bool, twice: bool) -> Deferred[dict[str, Any]]:
    name = wanted["name"]
    row: dict[str, Any] = {
        "name": name, "topic_id": NO_ID, "error_code": 0, "error_message": None, "topic_config_error_code": 0,
        "num_partitions": -1, "replication_factor": -1, "configs": [],
    }  # fmt: skip

    def refused(failure: Any) -> dict[str, Any]:
        error = failure.value
        code = getattr(error, "kafka_code", errors.REQUEST_TIMED_OUT)
        return {**row, "error_code": code, "error_message": str(error)}

    try:
        if twice:
            raise TopicRefused(errors.INVALID_REQUEST, f"Duplicate topic name: {name}")
        configs = {c["name"]: c["value"] for c in wanted["configs"]}
        command = plan(
            node, name, wanted["num_partitions"], wanted["replication_factor"], wanted["assignments"], configs
        )
    except TopicRefused as error:
        return succeed({**row, "error_code": error.kafka_code, "error_message": str(error)})
    row["num_partitions"], row["replication_factor"] = len(command.partitions), len(command.partitions[0][1])
    row["configs"] = [
        {"name": n, "value": str(effective(configs, n)), "read_only": False, "config_source": 1 if n in configs else 5,
         "is_sensitive": False}
        for n in sorted({*configs, "cleanup.policy", "max.message.bytes", "retention.ms", "segment.bytes"})
    ]  # fmt: skip
    if validate_only:
        return succeed(row)
    done = create(node, command).addCallback(lambda _outcome: _led(node, name))
    return done.addCallbacks(lambda _none: {**row, "topic_id": bytes.fromhex(command.topic_id)}, refused)


def _led(node: NebulaNode, name: str) -> Deferred[None]:
    """Fires when `name` is known here and its partitions have leaders: clients publish at once (gotcha 34)."""

    def check() -> bool:
        topic = topic_of(node, name, None)
        return topic is not None and all(node.view.live_leader(info.group)[0] for info in topic.partitions)

    return node.view.settled(check, LEADERS_S)


def delete_topics(node: NebulaNode, body: dict[str, Any], version: int, connection: Any) -> Any:
    """The call: by name, or from v6 by id."""
    wanted = body.get("topics") or [{"name": n, "topic_id": NO_ID} for n in body.get("topic_names") or []]
    waits = [_delete_one(node, want) for want in wanted]
    return gatherResults(waits).addCallback(lambda rows: {"throttle_time_ms": 0, "responses": rows})


def _delete_one(node: NebulaNode, want: dict[str, Any]) -> Deferred[dict[str, Any]]:
    topic = topic_of(node, want.get("name"), want.get("topic_id"))
    row = {"name": want.get("name"), "topic_id": want.get("topic_id") or NO_ID, "error_code": 0, "error_message": None}
    if topic is None or node.controller is None:
        by_id = not want.get("name")
        code = errors.UNKNOWN_TOPIC_ID if by_id else errors.UNKNOWN_TOPIC_OR_PARTITION
        return succeed({**row, "error_code": code, "error_message": "This server does not host this topic-partition."})
    row.update(name=topic.name, topic_id=bytes.fromhex(topic.topic_id))
    failed = {**row, "error_code": errors.REQUEST_TIMED_OUT}
    return node.controller.submit(DeleteTopic(topic.name)).addCallbacks(lambda _o: row, lambda _f: failed)
