"""What clients hear in the moments when a leader dies or a topic appears: real nodes, one request, no second try."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nebula.testing.processes import ProcessCluster, eventually
from nebula.testing.wireclient import WireClient


class SettlingTests(SynchronousTestCase):
    """Three nodes."""

    def setUp(self) -> None:
        self.cluster = ProcessCluster(3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def test_the_first_answer_after_a_kill_names_the_new_leader(self) -> None:
        """Broken: clients are told the dead leader, and librdkafka asks again only a second later."""
        victim = self.cluster.leader_of("stars", 0)
        others = [name for name in self.cluster.names if name != victim]
        with WireClient(self.cluster.client_address(others[0])) as client:
            self.cluster.kill(victim)
            (row,) = [p for p in client.metadata(["stars"])["topics"][0]["partitions"] if p["partition_index"] == 0]
        self.assertEqual(row["error_code"], 0)
        self.assertIn(self.cluster.node_of(row["leader_id"]), others)

    def test_the_first_answer_about_a_new_topic_names_its_leaders(self) -> None:
        """Broken: the first publish to a topic nobody created waits for the client's back-off (two seconds)."""
        with WireClient(self.cluster.client_address("n1")) as client:
            topic = client.metadata(["fresh"])["topics"][0]
        self.assertEqual(topic["error_code"], 0)
        self.assertEqual([p["error_code"] for p in topic["partitions"]], [0, 0, 0])

    def test_a_node_that_was_away_hears_who_leads(self) -> None:
        """Broken: a node that comes back does not know leaders elected meanwhile until they change again."""
        self.cluster.leader_of("stars", 0)
        self.cluster.kill("n3")
        self.cluster.restart("n3")

        def led() -> bool:
            with WireClient(self.cluster.client_address("n3")) as client:
                return all(p["error_code"] == 0 for p in client.metadata(["stars"])["topics"][0]["partitions"])

        eventually("all leaders known to n3", led)
