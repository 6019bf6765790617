"""What stands behind commands under test: a fork is as good a process as a fresh one."""

from support.prepared import run

AT_ONCE = """
import threading, torch

numbers, errors, together = torch.randn(200, 200), [], threading.Barrier(4)

def convert():
    together.wait()
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


def test_the_first_operations_of_a_command_may_be_in_several_threads_at_once():
    assert [run(["-c", AT_ONCE]).returncode for _ in range(10)] == [0] * 10
