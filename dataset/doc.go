// Package dataset reads and writes the data sets that models are trained and measured on.
//
// A [Set] is a list of images with what is known of each: a class ([ReadFolder], [ReadList]), objects with
// boxes and outlines ([ReadCOCO], [ReadVOC], [ReadYOLO]), or a mask that gives every pixel a class
// ([ReadMasks], [ReadVOC]). [Recognize] finds out which of these a folder or file is. Masks are read one
// at a time, by [ReadMask].
//
// Boxes are [Box]: xyxy in pixels from 0, the right and bottom edge not included, whatever the files hold:
// Pascal VOC's pixels that count from 1, COCO's x, y, width and height, YOLO's shares of the image.
//
// [WriteVOC] and [WriteYOLO] write the objects of one image, whole or not at all. COCO's files are written
// by package coco.
//
// What a file has wrong is an [Error], which names the file and the line.
package dataset
