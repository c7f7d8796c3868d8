package main
import ("context";"fmt";"os";"github.com/torchvit/torchvit/cgo";"github.com/torchvit/torchvit/cgo/install")
func main(){ in,err:=install.Setup(context.Background(),cgo.Sources(),install.Options{Log:os.Stdout}); fmt.Printf("%+v\n%+v\n",in,err)}
