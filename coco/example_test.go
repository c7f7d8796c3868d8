package coco_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/torchvit/torchvit/coco"
)

func ExampleEncode() {
	mask, err := coco.Encode([]uint8{
		0, 1, 1, 0,
		0, 1, 1, 0,
		0, 0, 1, 0,
	}, 3, 4)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mask.Counts, mask)
	fmt.Println(mask.Area(), "pixels in", mask.Box())
	polygons, err := mask.Polygons()
	fmt.Println(polygons, err)
	// Output:
	// [3 2 1 3 3] 32112
	// 5 pixels in [1 0 2 3]
	// [[1 0 3 0 3 3 2 3 2 2 1 2]] <nil>
}

func ExampleRLE_IoU() {
	left, err := coco.FromBox(coco.Box{0, 0, 20, 10}, 10, 40)
	if err != nil {
		fmt.Println(err)
		return
	}
	middle, err := coco.FromPolygons([][]float64{{10, 0, 30, 0, 30, 10, 10, 10}}, 10, 40)
	if err != nil {
		fmt.Println(err)
		return
	}
	overlap, err := left.IoU(middle, false)
	fmt.Printf("%.3f %v\n", overlap, err)
	// Output: 0.333 <nil>
}

func ExampleCreateResults() {
	path := filepath.Join(os.TempDir(), "torchvit-example-results.json")
	defer os.Remove(path)
	results, err := coco.CreateResults(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer results.Abort() // nothing stays where Close is not reached
	for image := range 2 {
		err := results.Write(coco.Result{
			ImageID: int64(image + 1), CategoryID: 18, Score: 0.5, Box: &coco.Box{10, 20, 30, 40},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := results.Close(); err != nil {
		fmt.Println(err)
		return
	}
	text, err := os.ReadFile(path)
	fmt.Print(string(text), err)
	// Output:
	// [{"image_id":1,"category_id":18,"bbox":[10,20,30,40],"score":0.5},
	// {"image_id":2,"category_id":18,"bbox":[10,20,30,40],"score":0.5}]
	// <nil>
}

func ExampleEvaluate() {
	gt := &coco.Dataset{ // or coco.ReadDatasetFile("instances_val2017.json")
		Images:     []coco.Image{{ID: 1, Height: 480, Width: 640}},
		Categories: []coco.Category{{ID: 1, Name: "cat"}, {ID: 2, Name: "dog"}},
		Annotations: []coco.Annotation{
			{ID: 1, ImageID: 1, CategoryID: 1, Box: coco.Box{100, 100, 200, 100}, Area: 15000},
			{ID: 2, ImageID: 1, CategoryID: 2, Box: coco.Box{300, 50, 50, 60}, Area: 2000},
		},
	}
	dt := []coco.Result{
		{ImageID: 1, CategoryID: 1, Score: 0.9, Box: &coco.Box{100, 100, 200, 80}},
		{ImageID: 1, CategoryID: 2, Score: 0.4, Box: &coco.Box{300, 50, 50, 60}},
		{ImageID: 1, CategoryID: 2, Score: 0.8, Box: &coco.Box{10, 10, 50, 60}},
	}
	result, err := coco.Evaluate(gt, dt, coco.EvalOptions{Type: coco.BBox})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("AP %.3f, AP50 %.3f\n", result.Stats.AP, result.Stats.AP50)
	for k, category := range gt.Categories {
		fmt.Printf("%s: AP %.3f\n", category.Name, result.PerCategory[k].AP)
	}
	// Output:
	// AP 0.600, AP50 0.750
	// cat: AP 0.700
	// dog: AP 0.500
}

func ExampleVOCAveragePrecision() {
	result, err := coco.VOCAveragePrecision(
		[]coco.VOCObject{{Image: 1, Box: coco.Box{0, 0, 10, 10}}, {Image: 2, Box: coco.Box{5, 5, 10, 10}}},
		[]coco.VOCDetection{{Image: 1, Box: coco.Box{0, 0, 10, 9}, Score: 0.9}},
		coco.VOCOptions{},
	)
	fmt.Println(result.AP, err)
	// Output: 0.5 <nil>
}
