"""A thousand requests, and an end in the middle of them."""

from __future__ import annotations

import http.client
import re
import signal
import threading
import time
from collections import Counter

import pytest

from tests.serve.benchmark import loop, percentiles, served
from tests.serve.clients import picture, process


@pytest.mark.slow
def test_a_thousand_requests_from_sixteen_clients(trained, tmp_path, capsys):
    files = [tmp_path / f"{number}.png" for number in range(20)]
    for number, file in enumerate(files):
        file.write_bytes(picture(number, (60 + number, 80)))
    alone = loop(trained.workdir, files, 200)
    found = served(trained.workdir, files, 1000, 16)
    middle, end = found["memory"]
    assert found["programs"] == 0
    assert abs(end - middle) < 0.05 * middle
    with capsys.disabled():
        print(f"\nloop of calls {percentiles(alone)} ms, {len(alone) / sum(alone):.1f} images/s")
        print(f"server, 16 clients {percentiles(found['seconds'])} ms, {found['rate']:.1f} images/s")
        print(f"memory {middle / 1e6:.0f} MB after 200 requests, {end / 1e6:.0f} MB after 1,000")


@pytest.mark.slow
def test_sigterm_under_load_loses_no_request(trained, capsys):
    """Each of them has a whole answer, or was refused: 503, or a connection that is closed before any answer."""
    outcomes: Counter[str] = Counter()
    turn = threading.Lock()
    with process(trained.workdir) as (port, server):

        def client(seed: int) -> None:
            body = picture(seed)
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request("POST", "/inspect", body)
                    answer = connection.getresponse()
                    content = answer.read()
                    outcome = str(answer.status)
                    assert content.endswith(b"}")
                except ConnectionRefusedError:
                    outcome = "refused"
                except (ConnectionError, http.client.RemoteDisconnected):
                    outcome = "closed"
                except (http.client.HTTPException, TimeoutError, AssertionError) as error:
                    outcome = f"lost: {error!r}"
                with turn:
                    outcomes[outcome] += 1
                if outcome != "200":
                    return

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        while outcomes["200"] < 50:
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        assert server.wait(60) == 128 + signal.SIGTERM
        assert server.stderr is not None
        said = re.search(r"(\d+) images accepted, (\d+) answered", server.stderr.read())
    assert set(outcomes) <= {"200", "503", "refused", "closed"}, outcomes
    assert outcomes["503"] > 0
    assert said is not None
    assert said[1] == said[2] == str(outcomes["200"])
    with capsys.disabled():
        print(f"\nSIGTERM under load: {dict(outcomes)}")
