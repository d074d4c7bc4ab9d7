"""The rhythm of training: start, update, record, finish. It knows its parts only as protocols."""
