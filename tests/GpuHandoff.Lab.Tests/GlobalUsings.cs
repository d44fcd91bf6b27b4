global using GpuHandoff.Lab.Vm;
