# From the JSON of hack/bench: one line a goal of husk's, met or missed.
.base as $base
| .rows[] | select(.runtimes.husk) | . as $row
| (.runtimes.husk.median) as $husk
| [
	["× floor", .goal.floor, .runtimes.floor.median],
	["× \($base)", .goal.base, .runtimes[$base].median],
	[(if .key == "waiting" then "KiB" else "µs" end), .goal.most, 1]
][]
| select(.[1] > 0 and .[2])
| ($husk / .[2]) as $is
| (if .[2] == 1 then ($is | round) else ($is * 100 | round / 100) end) as $shown
| "\(if $is <= .[1] then "met   " else "MISSED" end) \($row.operation): \($shown) of \(.[1]) \(.[0])"
