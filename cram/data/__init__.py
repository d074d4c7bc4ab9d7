"""Text in, packed rows out: sources, cleaning, tokenizer, packing, shards and the loader. Numpy only, no torch.

The words of this package, from the text to the batch:

source      Where the text comes from: files, a data set of the Hub, or the prose of the Python installation.
part        One file, package or shard of a source. Parts are read one at a time, each from its start.
record      A place in a part that holds a document: a line, a row, a paragraph or the whole file.
document    A text and its origin; or a fault, in the place of a record that could not be read.
chunk       Up to 1000 documents (two million bytes) that one worker process handles at once.
segment     About 100,000 documents whose results are kept in one pair of files, so that a preparation that was
            killed continues after its last segment.
fate        What becomes of a document: kept, held out, or the reason why it is dropped.
held out    Documents that a run is evaluated on and never trained on, chosen by a hash of their text.
row         `seq_len` tokens of one or more documents: what the model sees.
shard       A file with many rows. A shard folder holds the shards of one preparation and its manifest.

A preparation reads a source twice. The first pass decides on every document: it cleans, judges and signs them. The
fates are final when duplicates were looked for among all of them. The second pass reads the kept documents again,
tokenizes them and packs the tokens into rows.

Documents are numbered in three ways:

location         `Location(part, record)`: where a document lies in its source. Both passes read by locations and resume
                 after one. Locations survive a change of the order in which parts are read.
scan index       The place of a document in the order of the first pass (`ReadingPlan`), which may read a part in two
                 rounds. The arrays of the segments, joined, are in this order.
document number  The place of a document among all scanned documents, sorted by location. Fates, duplicates and the
                 second pass use it. `Segments.order[document number]` is the scan index.

Two more numbers are local: the index of a document in its chunk, and in a shard's `documents` array the index of a
document in its row.
"""
