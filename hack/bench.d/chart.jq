# From the JSON of hack/bench: a bar chart as SVG, for light and dark pages. In each operation the base (crun) is 100 wide; what is longer than
# the chart ends in an arrow.
def rows: ["run", "seccomp-anew", "userns", "create", "start", "exec", "state", "kill", "delete", "force", "at-once"];
def names: ["floor", "husk", "crun", "runc"];
def left: 200;
def unit: 150; # pixels that the base's bar takes
def longest: 420;
def bar: 9;
def time: if . >= 100000 then "\(. / 1000 | round) ms" elif . >= 10000 then "\(. / 100 | round / 10) ms" else "\(. / 10 | round / 100) ms" end;
def escape: gsub("&"; "&amp;") | gsub("<"; "&lt;");
def group($base; $top):
	. as $row
	| "<text class=\"t\" x=\"\(left - 8)\" y=\"\($top + 23)\" text-anchor=\"end\">\(.operation | escape)</text>",
	([names[] | select($row.runtimes[.])] | to_entries[]
		| .value as $name | ($top + .key * (bar + 1)) as $y | $row.runtimes[$name].median as $is
		| ($is / $row.runtimes[$base].median * unit) as $width
		| ([$width, longest] | min | . * 10 | round / 10) as $shown
		| "<rect class=\"\($name)\" x=\"\(left)\" y=\"\($y)\" width=\"\($shown)\" height=\"\(bar)\"/>",
		  "<text class=\"n\" x=\"\(left + $shown + 4)\" y=\"\($y + 8)\">\(if $width > longest then "→ " else "" end)\($is | time)</text>");
.base as $base
| .rows as $all
| [rows[] | . as $key | $all[] | select(.key == $key and .runtimes[$base])] as $chosen
| ($chosen | length * 46 + 30) as $height
| "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 \($height)\" width=\"680\" height=\"\($height)\" font-family=\"sans-serif\">",
  "<style>.t{font-size:12px;fill:#24292f}.n{font-size:9px;fill:#57606a}.floor{fill:#afb8c1}.husk{fill:#1a7f37}.crun{fill:#6e9fd8}.runc{fill:#b08bd0}",
  "@media(prefers-color-scheme:dark){.t{fill:#e6edf3}.n{fill:#9da7b1}.floor{fill:#6e7681}.husk{fill:#3fb950}.crun{fill:#4a7ab5}.runc{fill:#8a68ad}}</style>",
  ([names[] as $name | select($chosen[0].runtimes[$name]) | $name] | to_entries[]
	| "<rect class=\"\(.value)\" x=\"\(left + .key * 130)\" y=\"6\" width=\"10\" height=\"10\"/>",
	  "<text class=\"n\" style=\"font-size:11px\" x=\"\(left + .key * 130 + 14)\" y=\"15\">\(if .value == "floor" then "the kernel's share" else .value end)</text>"),
  ($chosen | to_entries[] | (30 + .key * 46) as $top | .value | group($base; $top)),
  "</svg>"
