"""Between machines: sensors ship closed segments to one shared lake, and anybody reads it.

    <destination>/lake.json                                              format, as of a lake
    <destination>/<table>/sensor=/date=/hour=/<start>-<end>-r<rows>-b<bytes>-<sha256>.parquet
    <destination>/.fleet/owners/<sensor>@<id>                            which lake ships as this sensor
    <destination>/.fleet/lakes/<id>.json                                 how that lake's shipping is, and what is new
    <destination>/.retired/<table>@<id>                                  as in a lake, see `analytics.listing`

Objects are only added, each once: whatever a reader lists holds every row once. The name says how many bytes an object
must have, what its hash is, and which times it holds, so that a listing is enough to plan a query and to see damage.
A destination that is a directory is itself a lake, for every command.
"""
