// Package coco reads, writes and evaluates what the COCO data set's tools do, in pure Go: masks as run
// lengths ([RLE]), ground truth ([Dataset], instances_val2017.json), results ([Result]) and the
// evaluation of boxes and masks ([Evaluate], pycocotools' COCOeval).
//
// Everything gives pycocotools' own numbers, to the bit where the input is valid: run lengths, compressed
// strings, masks of polygons, overlaps, and every array of the evaluation. Where pycocotools would work
// on garbage (counts that do not fill the mask, two annotations of one ID, a box that is not a number),
// functions here return an error that names the entry.
//
// A mask of height H and width W is row-major, pixel (x, y) at y*W+x, as images are in Go; run lengths go
// down the columns, as COCO's do. Boxes are [x, y, width, height] in pixels, (0, 0) the outer corner of
// the first pixel.
//
//	mask, err := coco.Encode(pixels, height, width)   // []uint8 or []bool
//	text := mask.String()                             // "counts" of COCO's JSON
//	overlap, err := mask.IoU(other, false)
//
//	gt, err := coco.ReadDatasetFile("instances_val2017.json")
//	dt, err := coco.ReadResultsFile("detections.json")
//	result, err := coco.Evaluate(gt, dt, coco.EvalOptions{Type: coco.BBox})
//	fmt.Println(result.Stats.AP)
package coco
