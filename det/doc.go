// Package det finds objects in photos: boxes with labels, scores and perhaps masks.
//
// [Load] takes a file of any kind of output: torchvision's detectors, scripted or traced; the set predictions of
// DETR, YOLOS, RT-DETR and Deformable DETR; the layouts of YOLO. Detect goes from photos to detections, with the
// bits of Python's own postprocessing (torchvision's, transformers', ultralytics'); [DetectOptions] holds
// thresholds, classes and suppression. Forward gives the candidates before all that.
//
// A [Box] is xyxy in absolute pixels of the photo, as in torchvision: X1 and Y1 the
// left and top edge, X2 and Y2 the right and bottom one, so that the photo itself is
// (0, 0, width, height). A [Detection] adds the label, its id in the model, the score and
// the mask. [Draw] draws detections on their photo.
//
// [NonMaximumSuppression], [BatchedNMS] and [SoftNMS] work on boxes from anywhere.
package det
