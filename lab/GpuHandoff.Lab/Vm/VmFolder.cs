namespace GpuHandoff.Lab.Vm;

/// <summary>A running VM's sockets and files; a socket's path may have 107 bytes, so they are not next to the evidence.</summary>
sealed class VmFolder(string console, bool terminal) : IDisposable
{
    readonly string path = Directory.CreateTempSubdirectory("gpu-handoff-lab-").FullName;

    public string Monitor => Path.Combine(path, "monitor");

    public string Agent => Path.Combine(path, "agent");

    public string Files => Path.Combine(path, "files.tar");

    public string FirmwareVariables => Path.Combine(path, "ovmf-variables.fd");

    public string Picture => Path.Combine(path, "picture.ppm");

    public string Console { get; } = console;

    public bool Terminal { get; } = terminal;

    public void Dispose() => Directory.Delete(path, recursive: true);
}
