using GpuHandoff.Lab;
using GpuHandoff.Lab.Image;
using GpuHandoff.Lab.Vm;

// lab image | shell | run COMMAND…, with --gpus N, --usb, --stranger, --display, --vga, --ovmf, --append WORDS, --file HOST=GUEST
try
{
    var asked = Asked.Parse(args);
    switch (asked.Verb)
    {
        case "image":
            var image = LabImage.Get(Console.Error.WriteLine);
            Console.WriteLine(Path.GetDirectoryName(image.Disk));
            Console.Write(File.ReadAllText(image.About));
            return 0;

        case "shell":
            using (var vm = LabVm.Boot(asked.Machine("shell"), Console.Error.WriteLine, terminal: true))
            {
                Console.Error.WriteLine($"GPUs: {string.Join(", ", vm.Gpus)}. `poweroff` ends it; press Enter for the prompt.");
                vm.WaitForEnd();
            }
            return 0;

        case "run" when asked.Words.Count > 0:
            using (var vm = LabVm.Boot(asked.Machine("run"), Console.Error.WriteLine))
            {
                var result = vm.Run(string.Join(' ', asked.Words), TimeSpan.FromMinutes(10));
                Console.Write(result.Output);
                Console.Error.Write(result.Errors);
                Console.Error.WriteLine(
                    $"exit {result.ExitCode}, {result.Took.TotalSeconds:f3} s in the guest, {result.RoundTrip.TotalSeconds:f3} s from here");
                return result.ExitCode;
            }

        default:
            Console.Error.WriteLine(Asked.Usage);
            return 2;
    }
}
catch (Exception trouble) when (trouble is LabUnavailable or LabVmLost or LabCommandSilent)
{
    Console.Error.WriteLine(trouble.Message);
    return 3;
}
