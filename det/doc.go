// Package det finds objects in photos: boxes with labels and scores.
//
// A [Box] is xyxy in absolute pixels of the photo, as in torchvision: X1 and Y1 the
// left and top edge, X2 and Y2 the right and bottom one, so that the photo itself is
// (0, 0, width, height). A [Detection] adds the label, its id in the model and the
// score. [Draw] draws detections on their photo.
package det
