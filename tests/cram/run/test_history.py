from cram.run.history import newest_threads


def test_the_newest_number_of_threads_is_that_of_the_last_process_or_of_a_choice_in_it() -> None:
    processes = [{"update": 0, "threads": 2}]
    assert newest_threads(processes, []) == 2
    assert newest_threads(processes, [{"update": 0, "threads": 2}]) == 2
    choices = [{"update": 0, "threads": 2}, {"update": 40, "threads": 1}]
    assert newest_threads(processes, choices) == 1
    processes.append({"update": 50, "threads": 4})  # its user has fixed the number
    assert newest_threads(processes, choices) == 4
