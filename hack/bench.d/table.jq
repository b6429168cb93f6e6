# From the JSON of hack/bench: the medians as a table in Markdown.
def names: ["floor", "husk", "crun", "runc"];
[names[] as $name | select(.rows[0].runtimes | has($name)) | $name] as $names
| def us: if . == null then "fails" elif . >= 100 then round else . * 10 | round / 10 end;
"| median, µs | \($names | join(" | ")) |", "| --- |\($names | map(" ---: |") | add)",
(.rows[] | . as $row | "| \(.operation) | \($names | map($row.runtimes[.].median | us | tostring) | join(" | ")) |")
