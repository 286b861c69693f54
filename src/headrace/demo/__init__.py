"""The demonstration: a job that is killed three times, and an independent count of what it wrote.

- `count_per_source`: the job, as a user would write it; `headrace run` runs it.
- `items`: the news and prices that it reads.
- `verification`: what a plain `read_committed` consumer finds, against what went in.
- `demonstration`: the story: broker, input, kills, count.
"""
