"""A forked process can run torch in several threads, like a fresh interpreter."""

from support.prepared import run

THREADED_CODE = """
import threading, torch

numbers, errors, barrier = torch.randn(200, 200), [], threading.Barrier(4)

def convert():
    barrier.wait()
    try:
        numbers.to(torch.bfloat16)
    except RuntimeError as error:
        errors.append(error)

threads = [threading.Thread(target=convert) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
raise SystemExit(len(errors))
"""


def test_the_first_operations_of_a_command_can_run_in_several_threads_at_once():
    assert [run(["-c", THREADED_CODE]).returncode for _ in range(10)] == [0] * 10
