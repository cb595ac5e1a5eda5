"""What the dashboard and the API ask of a lake, answered as columns ready for JSON. No web framework in here.

    watch = Watch("lake")
    body = watch.ask("overview", range_text="5m", filter_text="proto=udp", role="viewer")   # Encoded: gzip, ETag
    watch.answer("overview", range_text="5m")                                               # the same as a dictionary

`registry` lists the questions, `filters` and `timerange` are what they can be restricted by, `snapshots` has many
viewers ask the lake once, `memory` keeps what live pages ask for each second.
"""
