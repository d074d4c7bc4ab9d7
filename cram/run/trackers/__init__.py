"""Where the metrics of a run are shown beside metrics.jsonl: TensorBoard's files, and trackers of `track=`."""
