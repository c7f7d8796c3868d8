#!/usr/bin/env bash
# The demo: `make demo` calls it once torchvit is built and set up. It takes scenes that training
# never saw through every task with the trained models of testdata/models, checks each model
# against Python's own numbers, trains a new head, and writes pictures to look at into demo/ (or $1).
set -euo pipefail
cd "$(dirname "$0")/.."

torchvit=bin/torchvit
models=testdata/models
out=${1:-demo}
# The first ones.
scenes=(testdata/scenes/scene_{1..6}.jpg)
singles=(testdata/scenes/single_{1..10}.jpg)
photos=(testdata/images/chelsea.png testdata/images/coffee.jpg)

# show COMMAND... prints a command and runs it; what goes to stderr comes where it fails.
show() {
	printf '\n$ torchvit %s\n' "$*"
	quiet "$@"
}
quiet() {
	"$torchvit" "$@" 2>"$log" || {
		cat "$log" >&2
		return 1
	}
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
rm -rf "$out"/{classify,attend,segment,segment-head,segment-deconvolution,detect,detect-yolo,train} "$out/verify.txt"
mkdir -p "$out/train"

echo "== classification: which garment is it?"
show classify "$models/garments_vit.pt" "${singles[@]}" --top 2 --out "$out/classify"

echo
echo "== attention: what the ViT looks at, which was taught names alone"
show attend "$models/garments_vit.pt" "${scenes[@]}" "${photos[@]}" --smooth --colormap inferno --out "$out/attend"

echo
echo "== segmentation: a class for every pixel, by a 1x1 head and by a transposed convolution"
show segment "$models/garments_segmentation.pt" "${scenes[@]}" --palette distinct --out "$out/segment"
show segment "$models/garments_deconvolution.pt" "${scenes[@]}" --palette distinct --out "$out/segment-deconvolution"

echo
echo "== the same from two files: the ViT of the classifier, and a 1x1 head on its tokens"
show segment "$models/garments_vit.pt" "${scenes[@]}" --head "$models/garments_segmentation_head.pt" --palette distinct --out "$out/segment-head"

echo
echo "== detection: Faster R-CNN over the ViT's features, and a YOLO-style head"
show detect "$models/garments_faster_rcnn.pt" "${scenes[@]}" --palette distinct --out "$out/detect"
show detect "$models/garments_yolo.pt" "${scenes[@]}" --palette distinct --out "$out/detect-yolo"

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

echo
echo "== training: the classifier's ViT gets a new head and learns to segment, on 200 small scenes"
# The segmentation model gives its code; --weights puts the classifier's ViT in, --init-head a new head. The
# scenes of testdata/scenes, on which it is measured, have other garments, photos and textures.
begin=("$models/garments_segmentation.pt" --weights "$models/garments_vit.pt" --init-head --data testdata/scenes_train/instances.json)
# One image, at a rate of next to nothing: how it begins.
quiet train "${begin[@]}" --limit 1 --epochs 1 --lr 1e-30 --out "$out/train/begin.pt" >/dev/null
quiet segment "$out/train/begin.pt" "${scenes[@]}" --palette distinct --out "$out/train/before" >/dev/null
train=(train "${begin[@]}" --val testdata/scenes/instances.json --epochs 6 --lr 1e-3 --layer-decay 0.8 --warmup 10
	--clip-grad-norm 1 --dice 0.5 --augment "flip,color=0.2" --eval-every 2 --out "$out/train/tuned.pt")
echo
{
	echo "$ torchvit ${train[*]}"
	"$torchvit" "${train[@]}"
} 2>&1 | tee "$out/train/train.txt"
quiet segment "$out/train/tuned.pt" "${scenes[@]}" --palette distinct --out "$out/train/after" >/dev/null
mv "$out/train/tuned.run/curves.png" "$out/train"
rm -r "$out/train"/{begin.pt,*.run}

cat <<EOF

== written, have a look:
$out/classify/*.classes.jpg           the garment's name and how sure the model is
$out/attend/*.attention.png           the class token's attention, head by head
$out/attend/*.attention-mean.jpg      the mean of the heads over the photo
$out/segment/*.overlay.jpg            the classes painted over the photo, with a legend
$out/segment/*.mask.png               the class ids themselves, an indexed PNG
$out/segment-head/*.overlay.jpg       the same from a ViT and a head in two files
$out/segment-deconvolution/           the same from a transposed convolution
$out/detect/*.detections.jpg          boxes with labels and scores
$out/detect-yolo/*.detections.jpg     the same from a YOLO-style head
$out/train/before/*.overlay.jpg       what a new head says,
$out/train/after/*.overlay.jpg        and what it has learned
$out/train/curves.png                 its loss, rate and mIoU
$out/train/tuned.pt                   the trained model, for every command
$out/verify.txt                       every output of every model against Python's
EOF
echo "$(find "$out" -type f | wc -l) files in all"
