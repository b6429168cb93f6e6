# From the JSON of hack/bench: the medians as a table in Markdown.
def names: ["floor", "husk", "crun", "runc"];
[names[] as $name | select(.rows[0].runtimes | has($name)) | $name] as $names
| def us: if . == null then "fails" elif . >= 100 then round else . * 10 | round / 10 end;
"| median, µs | \($names | join(" | ")) |", "| --- |\($names | map(" ---: |") | add)",
(.rows[] | . as $row | "| \(.operation) | \($names | map($row.runtimes[.].median | us | tostring) | join(" | ")) |")
,
# the floor's would be that of the program that times it
"", "| most memory of one process, KiB | \($names - ["floor"] | join(" | ")) |", "| --- |\($names - ["floor"] | map(" ---: |") | add)",
(.rows[] | select(.key | IN("run", "seccomp-anew", "create", "start", "state", "kill", "delete", "exec", "list")) | . as $row
	| "| \(.operation) | \($names - ["floor"] | map($row.runtimes[.].peak_kib // "fails" | tostring) | join(" | ")) |")
