"""Makes `twistd --reactor nebula` known to Twisted."""

from twisted.application.reactors import Reactor

nebula = Reactor("nebula", "nebula.broker.reactor", "epoll(7) reactor of Nebula: lean, with a hook per turn.")
