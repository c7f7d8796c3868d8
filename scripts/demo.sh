#!/usr/bin/env bash
# The demo: `make demo` calls it once torchvit is built and set up. It takes garments on
# photos through every task with the small models of testdata/models, checks each model
# against Python's own numbers, and writes pictures to look at into demo/ (or $1).
set -euo pipefail
cd "$(dirname "$0")/.."

torchvit=bin/torchvit
models=testdata/models
out=${1:-demo}
scenes=(testdata/scenes/scene_*.jpg)
singles=(testdata/scenes/single_*.jpg)
photos=(testdata/images/chelsea.png testdata/images/coffee.jpg)

vit=$models/garments_vit.pt

# run FOLDER COMMAND... runs torchvit with --out and shows what it answers; the list of
# pictures comes at the end.
run() {
	local folder=$out/$1
	shift
	printf '\n$ torchvit %s\n' "$*"
	"$torchvit" "$@" --out "$folder" 2>"$log" || {
		cat "$log" >&2
		return 1
	}
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
rm -rf "$out"/{classify,attend,segment,segment-head,detect} "$out/verify.txt"
mkdir -p "$out"

echo "== classification: which garment is it?"
run classify classify "$models/garments_vit.pt" "${singles[@]}" --top 3

echo
echo "== attention: what the ViT looks at"
run attend attend "$vit" "${scenes[@]:0:2}" "${singles[0]}" "${photos[@]}" --smooth --colormap inferno

echo
echo "== segmentation: a class for every pixel"
run segment segment "$models/garments_segmentation.pt" "${scenes[@]}" --palette distinct

echo
echo "== the same from two files: a ViT, and a 1x1 head on its tokens"
run segment-head segment "$vit" "${scenes[@]:0:3}" --head "$models/garments_segmentation_head.pt" --palette distinct

echo
echo "== detection: Faster R-CNN over the ViT's features"
run detect detect "$models/garments_faster_rcnn.pt" "${scenes[@]}" --threshold 0.4 --palette distinct

echo
echo "== does Go give Python's numbers? (all of it in $out/verify.txt)"
failed=
for model in "$models"/*.pt; do
	"$torchvit" verify "$model" >"$log" || failed="$failed $model"
	cat "$log" >>"$out/verify.txt"
	sed -n -e '1,2p' -e '$p' "$log"
done
if [ -n "$failed" ]; then
	echo "demo: these models do not give Python's numbers:$failed" >&2
	exit 1
fi

cat <<EOF

== written, have a look:
$out/classify/*.classes.jpg           the garment's name and how sure the model is
$out/attend/*.attention.png           the class token's attention, head by head
$out/attend/*.attention-mean.jpg      the mean of the heads over the photo
$out/segment/*.overlay.jpg            the classes painted over the photo, with a legend
$out/segment/*.mask.png               the class ids themselves, an indexed PNG
$out/segment-head/*.overlay.jpg       the same from a ViT and a head in two files
$out/detect/*.detections.jpg          boxes with labels and scores
$out/verify.txt                       every output of every model against Python's
EOF
echo "$(find "$out" -type f | wc -l) files in all"
